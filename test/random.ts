// Repeatable pseudo-random numbers for fuzzing (xorshift32; Marsaglia 2003).

/** A generator of unsigned 32-bit integers; equal seeds give equal sequences. */
export function random(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}
