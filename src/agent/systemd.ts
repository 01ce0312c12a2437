// Talking to systemd, where it runs.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';

/** systemd runs this host (sd_booted(3)), and `root` is this host and no directory with another one. */
export function isSystemdRunning(root: string): boolean {
  return root === '/' && existsSync('/run/systemd/system');
}

const longestMs = 120_000;

/** Runs systemctl; `problem` is what it says when it fails. Never throws. */
export function systemctl(...parameters: readonly string[]): Promise<{ readonly problem?: string }> {
  return new Promise((resolve) => {
    const options = { timeout: longestMs, env: { ...process.env, LC_ALL: 'C', SYSTEMD_COLORS: '0' } };
    execFile('systemctl', ['--no-ask-password', ...parameters], options, (error, _stdout, stderr) => {
      if (!error) resolve({});
      else resolve({ problem: stderr.trim() === '' ? error.message : stderr.trim() });
    });
  });
}
