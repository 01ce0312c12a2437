// `kcare-build`: make patches from recipes, look at them, prove and try them, and publish them.
import { Command } from 'commander';
import { version } from '../agent/index.js';
import { exitCodes } from '../base/errors.js';
import { explainCommand } from './explain-command.js';
import { kernelCommand } from './kernel-build-command.js';
import { manualPage } from './manual-page.js';
import { ovalCommand } from './oval-command.js';
import { publishCommand } from './publish-command.js';
import { recipeCommand } from './recipe-command.js';
import { exitCodeOf } from './run-program.js';
import { tryCommand } from './try-command.js';
import { verifyCommand } from './verify-command.js';

const program = new Command('kcare-build')
  .version(version(), '--version', 'Print the version.')
  .helpOption('--help', 'Print this page.')
  .helpCommand(false)
  .configureHelp({
    formatHelp: manualPage({
      name: 'kcare-build - make patches for running processes and kernels',
      synopsis: `kcare-build COMMAND [OPTIONS]
kcare-build COMMAND --help`,
      description: `kcare-build makes patches for libraries and kernels out of recipes and the source packages of a distribution, shows and proves what it made, tries it on processes of its own, and publishes it in a signed feed. Each command has a page of its own and takes --json for results that programs read.`,
      exit: `0
  Done.
1
  Something failed: a tool, a file, the network.
2
  Refused, because it would be unsafe or is not trusted.
3
  There is nothing to patch.
64
  Wrong options.`,
      examples: `kcare-build recipe recipes/debian12/openssl.yaml --output /root/patches
  Make a patch.
kcare-build publish --feed /srv/feed --keys /root/feed-keys /root/patches/*.kpatch
  Put it into a feed.`,
    }),
  })
  .showHelpAfterError('See kcare-build --help.')
  .addCommand(recipeCommand())
  .addCommand(kernelCommand())
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
