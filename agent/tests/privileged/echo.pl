# An echo server on Perl's Mojolicious.
# Prints `listening PORT`. Pings each connection three times: the last ping is answered long before anybody closes.
use Mojolicious::Lite -signatures;
use Mojo::IOLoop;
use Mojo::Server::Daemon;
use Mojo::WebSocket 'WS_PING';

websocket '/' => sub ($connection) {
  $connection->tx->max_websocket_size(1 << 20);
  $connection->on(text => sub ($connection, $bytes) { $connection->send({text => $bytes}) });
  $connection->on(binary => sub ($connection, $bytes) { $connection->send({binary => $bytes}) });
  for my $number (1 .. 3) {
    my $ping = [1, 0, 0, 0, WS_PING, 'p' x $number];
    Mojo::IOLoop->timer(0.5 * $number => sub { $connection->tx->send($ping) });
  }
};

app->log->level('warn');
my $daemon = Mojo::Server::Daemon->new(app => app, listen => ['http://127.0.0.1:0'], silent => 1);
# Other than run(), it does not take the clients of others for itself.
$daemon->max_clients(1000)->start;
$| = 1;
print "listening ${\$daemon->ports->[0]}\n";
Mojo::IOLoop->start;
