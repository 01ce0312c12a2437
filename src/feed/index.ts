// Public face of the feed layer: the signed feed as publishers make it and agents use it.
export { type CachedOptions, cachedFeed } from './client.js';
export { type FeedOptions, type UpdateOptions, feedConfirmed, openCachedFeed, updateFeed } from './update.js';
export { hasCachedFeed } from './cached.js';
export type { ProxySettings } from './fetcher.js';
export { importKey, listKeys, removeKey } from './keyring.js';
export { defaultPrefix, feedPrefix, isPatchsetName, nextPatchsetName } from './names.js';
export type { KeyDescription } from './openpgp.js';
export {
  type FeedLocation,
  type PublishOptions,
  type PublishResult,
  publish,
  refreshFeed,
  rotateRole,
} from './publish.js';
export { type Lifetimes, defaultLifetimes } from './repository.js';
export { type RoleName, roleNames } from './role-keys.js';
export type { PatchEntry, ReleasedPatchset } from './schema.js';
export type { FeedState, SelectPatchset, VerifiedPatchFile } from './state.js';
