// `kcare-build`: make patches from recipes, look at them, prove and try them, and publish them.
import { Command } from 'commander';
import { exitCodes } from '../base/errors.js';
import { explainCommand } from './explain-command.js';
import { ovalCommand } from './oval-command.js';
import { publishCommand } from './publish-command.js';
import { recipeCommand } from './recipe-command.js';
import { exitCodeOf } from './run-program.js';
import { tryCommand } from './try-command.js';
import { verifyCommand } from './verify-command.js';

const program = new Command('kcare-build')
  .description('make patches for running processes')
  .addCommand(recipeCommand())
  .addCommand(explainCommand())
  .addCommand(verifyCommand())
  .addCommand(tryCommand())
  .addCommand(publishCommand())
  .addCommand(ovalCommand())
  .exitOverride();
for (const command of program.commands) command.exitOverride();

process.exitCode = await exitCodeOf('kcare-build', async () => {
  await program.parseAsync();
  return Number(process.exitCode ?? exitCodes.done);
});
