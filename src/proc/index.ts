// What kcare knows about other processes, read from /proc; nothing here writes.
export { containerIdOf, readContainer } from './container.js';
export { readAuxiliaryBytes, readAuxiliaryVector } from './auxiliary.js';
export { processFailure, systemCode } from './failure.js';
export { readExecutable } from './executable.js';
export { readHeapStart } from './heap.js';
export { readMaps, parseMaps, type Mapping } from './maps.js';
export { readStatus, parseStatus, type ProcessStatus } from './status.js';
export { listProcesses, listThreads, readStartDate, readStartTime } from './processes.js';
export { memoryDirectory, readCommand, readProcessFile, readProcessLink } from './files.js';
export { openMemory, ProcessMemory } from './memory.js';
export { mappedObjects, type MappedObject } from './objects.js';
