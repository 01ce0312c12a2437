// Public face of the server layer.
export { type RunningServer, type ServerOptions, cacheControl, startServer } from './server.js';
export { type ReportLimits, defaultReportLimits } from './reports.js';
