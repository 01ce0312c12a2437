// Public face of the link layer.
export * from './gap.js';
export * from './header.js';
export * from './image.js';
export * from './plan.js';
