// The rules by which the audit system leaves out the ptrace calls of kcare, and of nobody else.
import { realpathSync } from 'node:fs';
import { KcareError } from '../base/errors.js';

/** Where the package keeps a Node.js that runs nothing but kcare. */
export const packagedProgram = '/usr/libexec/kcare/node';

/**
 * The text of /etc/audit/rules.d/kernelcare.rules for the program that executes kcare; default the one that runs now.
 * The program is the mark because process ids come and go, and the kernel follows it when it is replaced. "-A" puts the
 * rule before all others, as the first that matches decides. Throws USAGE for a path that a rule cannot hold.
 */
export function auditRules(program: string = realpathSync(process.execPath)): string {
  if (!/^\/[\x21-\x7e]{1,4000}$/.test(program))
    throw new KcareError('USAGE', `${JSON.stringify(program)} cannot stand in an audit rule.`);
  const shared =
    program === packagedProgram
      ? ''
      : '## This program may run more than kcare: for an exact rule, give kcare a Node.js of its own.\n';
  return `## kcare stops and looks at processes by ptrace, which would fill the audit log.
## Calls of all other programs are logged as other rules say. Remove: auditctl -D -k kcare
${shared}-A never,exit -F arch=b64 -S ptrace -F exe=${program} -F euid=0 -F key=kcare
`;
}
