// What postal-mime makes of mails: one JSON array of the files named, as tests/browser/proof/test_structure.py reads.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const { default: PostalMime, decodeWords } = createRequire(join(folder, "x.js"))("postal-mime");

function part(node) {
  const type = node.contentType.parsed;
  const disposition = node.contentDisposition?.parsed;
  const told = { type: type.value.toLowerCase() };
  if (node.childNodes.length) {
    return { ...told, parts: node.childNodes.map(part) };
  }
  const octets = Buffer.from(node.content);
  const name = disposition?.params.filename ?? type.params.name;
  told.disposition = disposition?.value ?? "";
  told.name = name ? decodeWords(name) : "";
  if (type.value.startsWith("text/")) {
    const charset = type.params.charset.toLowerCase();
    const text = new TextDecoder(charset, { fatal: true }).decode(octets).replaceAll("\r\n", "\n");
    // It ends every line, also the last one, whose line end is the boundary's (RFC 2046 section 5.1.1).
    const lines = node.contentTransferEncoding.encoding !== "base64";
    return { ...told, charset, text: lines ? text.replace(/\n$/, "") : text };
  }
  return {
    ...told,
    id: node.contentId ?? "",
    sha256: createHash("sha256").update(octets).digest("hex"),
  };
}

const mails = [];
for (const file of files) {
  const parser = new PostalMime();
  const mail = await parser.parse(await readFile(file));
  const headers = mail.headers.map(({ originalKey, value }) => [originalKey, decodeWords(value)]);
  mails.push({ headers: headers.sort(), body: part(parser.root) });
}
console.log(JSON.stringify(mails));
