// `npm run noise`: compares objects with themselves, each function put in anew; nothing may differ.
import { kernelNoise } from './kernel-noise.js';
import { libraryNoise } from './library-noise.js';

const [what = 'library', count = '220'] = process.argv.slice(2);
if ((what !== 'library' && what !== 'kernel') || !/^[1-9]\d*$/.test(count)) {
  process.stderr.write('npm run noise [-- library | kernel [OBJECTS]]\n');
  process.exitCode = 64;
} else {
  const isQuiet = await (what === 'kernel' ? kernelNoise(Number(count)) : libraryNoise());
  process.exitCode = isQuiet ? 0 : 1;
}
