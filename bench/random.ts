// Random numbers that are the same for the same seed.

/** Uniform in 0..bound-1; a linear congruential generator (Knuth). */
export type Random = (bound: number) => number;

export function generator(seed: number): Random {
  let state = BigInt(seed) * 0x9e3779b97f4a7c15n;
  return (bound) => {
    state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
    return Number((state >> 33n) % BigInt(bound));
  };
}
