// Patches put together by hand, shared with the endurance run.
export * from '../../fixtures/support/handmade.js';
