// The layers of src/, low to high: a layer may import from itself and from layers before it in this list.
export const layers = [
  'base',
  'elf',
  'patchfile',
  'build',
  'proc',
  'link',
  'addon',
  'engine',
  'host',
  'feed',
  'agent',
  'server',
  'cli',
];

/** Layers that must not open files or sockets, start programs or look at processes. */
export const pureLayers = ['elf', 'patchfile', 'link'];
