// A forward proxy on loopback for tests: absolute-form requests, and CONNECT.
import { request } from 'node:http';
import { connect } from 'node:net';
import { loopback } from './world.js';

/** A forward proxy that writes down what it was asked for; gone at the end of the test. */
export async function proxy(seen: string[]): Promise<string> {
  return await loopback(
    (incoming, answer) => {
      seen.push(`${incoming.method ?? ''} ${incoming.url ?? ''}`);
      if (!/^http:/.test(incoming.url ?? '')) {
        answer.writeHead(400).end();
        return;
      }
      const onward = request(
        incoming.url ?? '',
        { method: incoming.method, headers: incoming.headers },
        (reply) => {
          answer.writeHead(reply.statusCode ?? 502, reply.headers);
          reply.pipe(answer);
        },
      );
      onward.on('error', () => answer.writeHead(502).end());
      onward.end();
    },
    (server) =>
      server.on('connect', (incoming, socket) => {
        seen.push(`CONNECT ${incoming.url ?? ''}`);
        const [host = '', port = ''] = (incoming.url ?? '').split(':');
        const onward = connect(Number(port), host, () => {
          socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
          onward.pipe(socket).pipe(onward);
        });
        onward.on('error', () => socket.destroy());
        socket.on('error', () => onward.destroy());
        socket.on('close', () => onward.destroy());
      }),
  );
}
