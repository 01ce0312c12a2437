// Loaded before a program (`node --import`): prints what commander knows of it as JSON instead of running it.
import { Command } from 'commander';

/** Pages are laid out as on a wide terminal. */
Object.defineProperty(process.stdout, 'columns', { value: 100 });

function describe(command) {
  const helper = command.createHelp();
  return {
    name: command.name(),
    help: command.helpInformation(),
    options: helper.visibleOptions(command).map((option) => ({
      flags: option.flags,
      long: option.long,
      short: option.short,
      description: option.description,
      takesValue: option.required || option.optional,
      choices: option.argChoices ?? [],
    })),
    arguments: command.registeredArguments.map((argument) => argument.name()),
    commands: helper
      .visibleCommands(command)
      .filter((one) => one.name() !== 'help')
      .map((one) => ({ description: one.description() || one.summary(), ...describe(one) })),
  };
}

function printDescription() {
  process.stdout.write(JSON.stringify(describe(this)), () => process.exit(0));
  // Nothing after it in the program may run.
  throw new Error('described');
}

Command.prototype.parse = printDescription;
Command.prototype.parseAsync = printDescription;
