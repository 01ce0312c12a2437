// The libraries that matter most, as they are installed: their builds, and whether the feed knows patches for them.
import { closeSync } from 'node:fs';
import { basename } from 'node:path';
import type { Settings } from '../agent/agent.js';
import { readBuildId } from './build-id.js';
import type { Check } from './coverage.js';
import { fixFor, readKnownFixes, type FeedKnowledge } from './known-fixes.js';
import { RootView } from './root-view.js';
import { FileSystemRoot } from './views.js';

const directories = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/lib/x86_64-linux-gnu', '/lib64'];
const names = ['libc.so.6', 'libcrypto.so.3', 'libcrypto.so.1.1', 'libssl.so.3', 'libssl.so.1.1'];

const area = 'libraries';

export async function libraryChecks(settings: Settings): Promise<Check[]> {
  const feed = await readKnownFixes(settings);
  const root = new FileSystemRoot(RootView.open('/'));
  try {
    const checks = names.flatMap((name) => checkLibrary(name, root, feed));
    return [knowledge(feed), ...checks];
  } finally {
    root.view.close();
  }
}

function knowledge(feed: FeedKnowledge): Check {
  const name = 'cached-feed';
  if (feed.state === 'known') {
    const { patchset, byBuildId } = feed.fixes;
    const finding = `Patchset ${patchset ?? '(none)'} is cached, with patches for ${byBuildId.size} builds.`;
    return { area, name, state: byBuildId.size > 0 ? 'covered' : 'not-covered', finding };
  }
  const finding = feed.state === 'unavailable' ? feed.error.message : 'The feed was left out.';
  const advice = 'Fetch the feed: kcarectl --lib-update (with --dry-run: without patching).';
  return { area, name, state: 'unknown', finding, advice };
}

/** At most one entry: the first directory that has the library counts. */
function checkLibrary(name: string, root: FileSystemRoot, feed: FeedKnowledge): Check[] {
  for (const directory of directories) {
    const path = `${directory}/${name}`;
    const file = root.view.openFile(path);
    if (!file) continue;
    const buildId = buildIdOf(file.descriptor);
    const owner = root.packages?.ownerOf(path);
    const from = owner ? `${owner.name} ${owner.version}` : 'of no known package';
    const what = `${basename(path)} (${from}, build-id ${buildId ?? 'none'})`;
    return [judged(`library:${name}`, what, buildId, feed)];
  }
  return [];
}

function judged(name: string, what: string, buildId: string | undefined, feed: FeedKnowledge): Check {
  const fix = fixFor(feed, buildId);
  if (fix) {
    const finding = `${what}: the feed has a patch of level ${fix.level}.`;
    return { area, name, state: 'covered', finding };
  }
  const finding =
    feed.state === 'known'
      ? `${what}: the feed has no patch for this build: it needs none, or none was made.`
      : `${what}: whether there is a patch is not known.`;
  return { area, name, state: 'note', finding };
}

function buildIdOf(descriptor: number): string | undefined {
  try {
    return readBuildId(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
