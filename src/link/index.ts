// Public face of the link layer.
export * from './escape.js';
export * from './gap.js';
export * from './header.js';
export * from './hooks.js';
export * from './image.js';
export * from './plan.js';
export * from './registration.js';
export * from './symbol-file.js';
