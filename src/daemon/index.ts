// libcare-server and its clients.
export { answerOfServer, askServer, NoServer, runByServer, type Question } from './client.js';
export { startDaemon, type Daemon, type DaemonOptions } from './daemon.js';
export { activationSocket, serviceManager } from './systemd-socket.js';
