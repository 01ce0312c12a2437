// What commands that make patches end with.
import { exitCodes } from '../base/errors.js';

export const outcomeExit = {
  built: exitCodes.done,
  refused: exitCodes.refused,
  unchanged: exitCodes.nothingChanged,
} as const;
