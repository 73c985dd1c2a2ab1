# What Perl's MIME-tools makes of mails: one JSON array of the files named, as tests/browser/proof/test_structure.py
# reads.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use Encode qw(decode);
use JSON::PP;
use MIME::Parser;

sub part {
    my ($entity) = @_;
    my $head = $entity->head;
    my %told = (type => lc $entity->mime_type);
    if ($entity->parts) {
        return { %told, parts => [map { part($_) } $entity->parts] };
    }
    $told{disposition} = lc($head->mime_attr('content-disposition') // '');
    $told{name} = $head->recommended_filename // '';
    my $octets = $entity->bodyhandle->as_string;
    if ($told{type} =~ m{^text/}) {
        my $charset = lc $head->mime_attr('content-type.charset');
        my $text = decode($charset, $octets, Encode::FB_CROAK);
        $text =~ s/\r\n/\n/g;
        return { %told, charset => $charset, text => $text };
    }
    my $id = $head->get('Content-ID') // '';
    $id =~ s/\s+$//;
    return {
        %told,
        id => $id,
        sha256 => sha256_hex($octets),
    };
}

my @mails;
for my $file (@ARGV) {
    my $parser = MIME::Parser->new;
    $parser->output_to_core(1);
    my $mail = $parser->parse_open($file);
    $mail->head->unfold;
    my @headers;
    for my $line (split /\r?\n/, $mail->head->as_string) {
        my ($name, $value) = $line =~ /^([^:\s]+):\s*(.*?)\s*$/ or die "no header: $line";
        push @headers, [$name, decode('MIME-Header', $value)];
    }
    @headers = sort { $a->[0] cmp $b->[0] || $a->[1] cmp $b->[1] } @headers;
    push @mails, { headers => \@headers, body => part($mail) };
}
print JSON::PP->new->utf8->canonical->encode(\@mails), "\n";
