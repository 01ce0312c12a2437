// libcare-server and its clients.
export { answerOfServer, askServer, NoServer, runByServer, type Question } from './client.js';
export { startDaemon, type Daemon, type DaemonOptions } from './daemon.js';
export { activationSocket, notifyReady } from './systemd-socket.js';
