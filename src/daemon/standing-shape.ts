// What the worker says of the patches that new processes get.
import { boolean, integer, list, record, text, type Shape } from '../base/shapes.js';
import type { Standing } from '../agent/index.js';

const patchShape = record({
  buildId: text(128),
  level: integer(0, 2 ** 31 - 1),
  sha256: text(64),
  path: text(4096),
});

const onShape = record({
  isOn: boolean,
  patchset: text(64),
  expires: text(64),
  mayFetch: boolean,
  patches: list(patchShape, 1_000_000),
});

const offShape = record({ isOn: boolean, reason: text(4096) });

/** Throws ShapeError. */
export const standingShape: Shape<Standing> = (value, where) => {
  const isOn = typeof value === 'object' && value !== null && 'isOn' in value && value.isOn === true;
  return isOn ? { ...onShape(value, where), isOn } : { ...offShape(value, where), isOn };
};
