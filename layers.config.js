// The layers of src/, low to high: a layer may import from itself and from layers before it in this list.
export const layers = [
  'base',
  'elf',
  'patchfile',
  'build',
  'make',
  'kbuild',
  'proc',
  'link',
  'addon',
  'engine',
  'review',
  'host',
  'feed',
  'kernel',
  'agent',
  'daemon',
  'scanner',
  'checker',
  'server',
  'cli',
];

/** Layers that must not open files or sockets, start programs or look at processes. */
export const pureLayers = ['elf', 'patchfile', 'link'];

/** Layers that every run of kcarectl loads. */
export const quicklyLoadedLayers = [
  'base',
  'elf',
  'patchfile',
  'proc',
  'link',
  'addon',
  'engine',
  'review',
  'host',
  'feed',
  'kernel',
  'agent',
];
