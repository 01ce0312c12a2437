// The archive's old libssl3 for tests that need no patch of it.
import { buildOpensslPatch } from '../../fixtures/support/patches.js';
import type { CheckerWorld } from './world.js';

export const PrivateLibssl = {
  /** A directory of `world` with copies of the libraries. */
  async copy(world: CheckerWorld): Promise<string> {
    return world.libraries((await buildOpensslPatch(['CVE-2026-22796'])).unpacked);
  },
};
