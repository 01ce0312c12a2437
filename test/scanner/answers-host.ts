// A small host with targets that map libanswers.so, and an agent that follows a feed with handmade patches for it.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LocalHost } from '../../fixtures/support/local-host.js';
import type { CommandResult } from '../../fixtures/support/kcarectl.js';
import { SmallHost, type Inhabitant } from '../../fixtures/support/small-host.js';
import { untilThreadWaits } from '../../fixtures/support/threads.js';
import { packageRoot } from '../../src/base/package-root.js';
import type { Patch } from '../../src/patchfile/index.js';
import { AnswersWorld } from '../host/answers.js';

export class AnswersHost {
  private constructor(
    readonly world: AnswersWorld,
    readonly agent: LocalHost,
    readonly small: SmallHost,
  ) {}

  static async create(patches: (world: AnswersWorld) => readonly Patch[]): Promise<AnswersHost> {
    const world = new AnswersWorld();
    const files = patches(world).map((patch, index) => world.writePatchFile(patch, `first-${index}`));
    const agent = await LocalHost.create(join(world.directory, 'host'), files);
    return new AnswersHost(world, agent, await SmallHost.create());
  }

  async remove(): Promise<void> {
    await this.small.end();
    this.world.remove();
  }

  /** Runs kcarectl where it sees only what {@link start} has started. */
  kcarectl(...parameters: readonly string[]): Promise<CommandResult> {
    const program = join(packageRoot(), 'bin', 'kcarectl');
    return this.small.run(program, ['--root', this.agent.root, ...parameters]);
  }

  /** The lines of the file for scanners. */
  get listed(): string[] {
    const text = readFileSync(join(this.agent.root, 'var/cache/kcare/libcare_cvelist'), 'utf8');
    return text.split('\n').filter((line) => line !== '');
  }

  async start(name?: string, environment: Readonly<Record<string, string>> = {}): Promise<Inhabitant> {
    let file = this.world.compiled.program;
    if (name !== undefined) {
      file = join(this.world.directory, name);
      copyFileSync(this.world.compiled.program, file);
    }
    const inhabitant = await this.small.start(file, [], { environment });
    await inhabitant.program.waitForLine(/^ready/);
    return inhabitant;
  }

  /** With a thread that stays inside wait_inside(). */
  async startBlocked(): Promise<Inhabitant> {
    const inhabitant = await this.start();
    inhabitant.program.writeLine('block');
    await untilThreadWaits(inhabitant.outerPid);
    return inhabitant;
  }

  /** The directory of a libanswers.so that differs in nothing but its build-id. */
  otherBuild(): string {
    const bytes = readFileSync(this.world.compiled.library);
    const buildId = Buffer.from(this.world.patch(1, 43).buildId, 'hex');
    const at = bytes.indexOf(buildId);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 0xff, at);
    const directory = join(this.world.directory, 'other-build');
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'libanswers.so'), bytes);
    return directory;
  }
}

/** `patch` with these vulnerabilities. */
export function fixing(patch: Patch, ...ids: readonly string[]): Patch {
  const cves = ids.map((id) => ({
    id,
    description: `About ${id}`,
    score: '5.0',
    url: `https://example.org/${id}`,
  }));
  return { ...patch, metadata: { ...patch.metadata, cves } };
}
