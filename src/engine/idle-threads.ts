// Which stopped thread may be interrupted by a function that takes the locks of the unwinder and of the allocator.
import { advance, type RemoteAddress, type RemoteRange } from '../base/address.js';
import type { SuspectThread } from '../addon/types.js';
import { readMaps, type MappedObject } from '../proc/index.js';
import { wordReader } from './commit.js';
import { DynamicTables, type Definition } from './dynamic-tables.js';
import { frameFinder, type FrameFinder } from './frames.js';
import { findImages } from './images.js';
import type { Target } from './target.js';
import { backtrace, type Frame } from './unwind.js';

/**
 * Functions of the C library in which threads wait for events or children. No allocator calls them, and the C library's
 * own allocator, loader and unwinder do not either: whoever waits in one holds none of their locks.
 */
const eventWaits = [
  ...['epoll_wait', 'epoll_pwait', 'epoll_pwait2', 'poll', 'ppoll', 'select', 'pselect'],
  ...['accept', 'accept4', 'connect', 'recv', 'recvfrom', 'recvmsg', 'recvmmsg', 'read', 'readv'],
  ...['pause', 'sigsuspend', 'sigwait', 'sigwaitinfo', 'sigtimedwait'],
  ...['wait4', 'waitid', 'msgrcv', 'semop', 'semtimedop'],
];
/** Functions in which threads wait for other threads or for time; a foreign allocator may do that with a lock held. */
const threadWaits = [
  ...['nanosleep', 'clock_nanosleep'],
  ...['pthread_cond_wait', 'pthread_cond_timedwait', 'pthread_cond_clockwait', 'pthread_barrier_wait'],
  ...['pthread_join', 'pthread_timedjoin_np', 'pthread_clockjoin_np'],
  ...['sem_wait', 'sem_timedwait', 'sem_clockwait'],
];
/** A wait is at most this many frames away from the system call. */
const deepestWait = 4;
/** The C library's frames below main (__libc_start_call_main, __libc_start_main) or below a thread's function. */
const mostStartFrames = 2;

interface Surroundings {
  readonly libraries: ReadonlySet<MappedObject>;
  readonly allocators: ReadonlySet<MappedObject>;
  /** The loader and everything that registers unwind tables. */
  readonly forbidden: ReadonlySet<MappedObject>;
  readonly eventWaits: readonly RemoteRange[];
  readonly threadWaits: readonly RemoteRange[];
  readonly objectAt: (address: RemoteAddress) => MappedObject | undefined;
}

/** Judges stopped threads by their whole precise backtrace; one that cannot be walked to its end is never idle. */
export function idlenessJudge(target: Target): (thread: SuspectThread) => boolean {
  // Read anew: a thread may be in an image that was mapped since.
  const maps = readMaps(target.pid);
  const finder = frameFinder(target.objects, maps, findImages(maps, target.read), target.read);
  const surroundings = surroundingsOf(target, finder);
  return (thread) => {
    const { frames, complete } = backtrace(thread.registers, finder, wordReader(thread, target));
    return complete && isIdle(frames, surroundings);
  };
}

function surroundingsOf({ objects, read }: Target, finder: FrameFinder): Surroundings {
  const tables = objects
    .filter(({ executable }) => executable)
    .flatMap((object) => DynamicTables.of(object, read) ?? []);
  const find = (table: DynamicTables, name: string): Definition | undefined =>
    table.find({ name, version: '' });
  const definers = (name: string): DynamicTables[] =>
    tables.filter((table) => find(table, name) !== undefined);
  const objectsOf = (list: readonly DynamicTables[]): Set<MappedObject> =>
    new Set(list.map(({ object }) => object));
  const libraries = definers('__libc_start_main');
  const ranges = (names: readonly string[]): RemoteRange[] =>
    libraries.flatMap((library) =>
      names.flatMap((name) => {
        const found = find(library, name);
        return found ? rangesOf(found.address, found.size, finder, read) : [];
      }),
    );
  return {
    libraries: objectsOf(libraries),
    allocators: objectsOf(definers('malloc')),
    forbidden: objectsOf([...definers('__tls_get_addr'), ...definers('__register_frame_info')]),
    eventWaits: ranges(eventWaits),
    threadWaits: ranges(threadWaits),
    objectAt: (address) =>
      objects.find(({ executable, start, end }) => executable && start <= address && address < end),
  };
}

/** The function, and the one that it ends in a jump to, which leaves no frame of its own on the stack. */
function rangesOf(
  start: RemoteAddress,
  size: number,
  finder: FrameFinder,
  read: Target['read'],
): RemoteRange[] {
  const own = { start, end: advance(start, size) };
  const jumpSize = 5;
  if (size < jumpSize) return [own];
  const jump = Buffer.from(read(advance(own.end, -jumpSize), jumpSize));
  const target = advance(own.end, jump.readInt32LE(1));
  const callee = jump[0] === 0xe9 ? finder(target) : undefined;
  if (!callee || BigInt(callee.start) !== target) return [own];
  return [own, { start: target, end: advance(target, callee.length) }];
}

function isIdle(frames: readonly Frame[], surroundings: Surroundings): boolean {
  // A handler may have interrupted anything.
  if (frames.some(({ interrupted }, index) => interrupted && index > 0)) return false;
  // The call lies before the return address.
  const places = frames.map(({ instruction }, index) => advance(instruction, index === 0 ? 0 : -1));
  return (
    isWaiting(places, surroundings.eventWaits, false, surroundings) ||
    isWaiting(places, surroundings.threadWaits, true, surroundings) ||
    isComputing(places, surroundings)
  );
}

function isWaiting(
  places: readonly RemoteAddress[],
  waits: readonly RemoteRange[],
  mayBeAllocator: boolean,
  { libraries, allocators, forbidden, objectAt }: Surroundings,
): boolean {
  const wait = places.findIndex((place) => waits.some(({ start, end }) => start <= place && place < end));
  if (wait < 0 || wait >= deepestWait) return false;
  const isLibrary = (object: MappedObject | undefined): boolean =>
    object !== undefined && libraries.has(object);
  if (!places.slice(0, wait).every((place) => isLibrary(objectAt(place)))) return false;
  return places.slice(wait + 1).every((place) => {
    const object = objectAt(place);
    if (!object) return true;
    return !forbidden.has(object) && (isLibrary(object) || !mayBeAllocator || !allocators.has(object));
  });
}

/** In code that belongs neither to the C library nor to an allocator, and called by nothing of them. */
function isComputing(
  places: readonly RemoteAddress[],
  { libraries, allocators, forbidden, objectAt }: Surroundings,
): boolean {
  const objects = places.map(objectAt);
  const isLibrary = (object: MappedObject | undefined): boolean =>
    object !== undefined && libraries.has(object);
  // Below main, the last frame is _start of the program.
  let end = objects.length;
  if (end > 1 && !isLibrary(objects[end - 1]) && isLibrary(objects[end - 2])) end--;
  for (let count = 0; count < mostStartFrames && isLibrary(objects[end - 1]); count++) end--;
  return (
    end > 0 &&
    objects
      .slice(0, end)
      .every(
        (object) => !object || (!libraries.has(object) && !allocators.has(object) && !forbidden.has(object)),
      )
  );
}
