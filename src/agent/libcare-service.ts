// --enable-libcare and --disable-libcare: the state on disk, the service and the periodic job brought in line.
import { exitCodes } from '../base/errors.js';
import type { Agent } from './agent.js';
import { initCron } from './libcare-cron.js';
import { setLibcareEnabled } from './libcare-state.js';
import { isSystemdRunning, systemctl } from './systemd.js';

export interface ServiceStep {
  readonly step: string;
  readonly result: 'done' | 'skipped' | 'failed';
  /** Why it was skipped or failed, or what is worth knowing; absent when nothing is. */
  readonly detail?: string;
}

export interface ServiceChange {
  readonly enabled: boolean;
  readonly steps: readonly ServiceStep[];
  readonly exitCode: number;
}

const units = ['libcare.socket', 'libcare.service'] as const;

/**
 * From whatever state to: on, the service fresh, the periodic job there. Restarting the service is harmless, as what is
 * patched is read from the processes. Each step is tried, whatever became of the one before. Throws UNSAFE_MODE (R10).
 */
export async function enableLibcare(agent: Agent): Promise<ServiceChange> {
  const { root } = agent.paths;
  const service = await serviceControl(root);
  const steps = [...(await service('stop')), await persist(agent, true)];
  steps.push(...(await service('enable')));
  const { isChanged, path = '', warnings } = await initCron(root);
  const detail = [isChanged ? path : `${path} was there`, ...warnings].join(': ');
  steps.push({ step: 'libcare-cron init', result: 'done', detail });
  steps.push(...(await service('start')));
  return finished(agent, true, steps);
}

/** Stops new patching now and after a reboot; what is patched stays so. The periodic job stays and does nothing. */
export async function disableLibcare(agent: Agent): Promise<ServiceChange> {
  const service = await serviceControl(agent.paths.root);
  // The state first: from now on nothing is patched, even when a unit cannot be stopped.
  const steps = [await persist(agent, false), ...(await service('stop')), ...(await service('disable'))];
  return finished(agent, false, steps);
}

async function persist({ paths }: Agent, enabled: boolean): Promise<ServiceStep> {
  await setLibcareEnabled(paths, enabled);
  return { step: `turn LibCare ${enabled ? 'on' : 'off'}`, result: 'done', detail: paths.libcareState };
}

function finished({ logger }: Agent, enabled: boolean, steps: readonly ServiceStep[]): ServiceChange {
  const hasFailed = steps.some(({ result }) => result === 'failed');
  const change = { enabled, steps, exitCode: hasFailed ? exitCodes.failed : exitCodes.done };
  logger.info({ command: enabled ? '--enable-libcare' : '--disable-libcare', ...change }, 'finished');
  return change;
}

/** A function that does something with the units of the service, or says why that is left out. */
async function serviceControl(root: string): Promise<(verb: string) => Promise<readonly ServiceStep[]>> {
  const why = await whyNoService(root);
  return async (verb) => {
    if (why !== undefined) return [{ step: `${verb} ${units.join(' ')}`, result: 'skipped', detail: why }];
    const steps: ServiceStep[] = [];
    for (const unit of units) {
      const { problem } = await systemctl(verb, unit);
      const step = `systemctl ${verb} ${unit}`;
      steps.push(
        problem === undefined ? { step, result: 'done' } : { step, result: 'failed', detail: problem },
      );
    }
    return steps;
  };
}

async function whyNoService(root: string): Promise<string | undefined> {
  if (root !== '/') return `${root} is not the root directory of this host`;
  if (!isSystemdRunning(root))
    return 'systemd does not run here; libcare-server can be run in the foreground';
  const { problem } = await systemctl('cat', units[1]);
  return problem === undefined ? undefined : 'the units of LibCare are not installed';
}
