// Recipes of kernel patches: which functions of a newer kernel's source go into the one that runs.
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { KcareError } from '../base/errors.js';
import { parseYaml } from '../build/recipe.js';

const file = z
  .string()
  .regex(/^[\w.+-]+(?:\/[\w.+-]+)+\.c$/, 'must be a .c file of the tree')
  .refine((text) => !text.split('/').includes('..'), 'must be inside the tree');
const identifier = z.string().regex(/^[A-Za-z_]\w*$/, 'is no C name');
const version = z.string().regex(/^[0-9][A-Za-z0-9.+~-]*$/, 'is no version of a package');

const editShape = {
  file,
  /** Functions whose definition is taken from the fixed version. */
  functions: z.array(identifier).min(1, 'must name what is taken from the fixed version'),
  /** Functions that only the fixed version has and the fix needs. */
  adds: z.array(identifier).default([]),
  /** Macros whose definition is taken from the file of the fixed version. */
  macros: z.array(identifier).default([]),
};

const fixSchema = z.strictObject({
  ...editShape,
  id: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'is no identifier such as CVE-2026-93146'),
  description: z.string().min(1),
  score: z.string().default(''),
  url: z.string().default(''),
  /** What the fix changes in further files. */
  also: z.array(z.strictObject(editShape)).default([]),
});

const recipeSchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9_]*$/, 'must be lower-case letters, digits, underscores'),
  description: z.string().min(1),
  level: z.int().positive().max(999_999_999),
  /** Release of the kernel that runs, as uname -r prints it; --kernel names another one. */
  kernel: z.string().regex(/^\d+\.\d+\.\d+-[a-z0-9.+-]+$/, 'is no release of a kernel'),
  /** Version of the kernel's packages whose source has the fixes. */
  fixed: version,
  /** The release that the kernel is worth with the patch; else the version that the fixes are from. */
  effective: z
    .string()
    .regex(/^[\w.+~:-]{1,128}$/, 'is no release')
    .optional(),
  cves: z
    .array(fixSchema)
    .min(1, 'names no fix')
    .refine((fixes) => new Set(fixes.map(({ id }) => id)).size === fixes.length, 'an id appears twice'),
});

export type KernelRecipe = z.infer<typeof recipeSchema>;
export type KernelEdit = z.infer<z.ZodObject<typeof editShape>>;

/** Throws FILE_MISSING, RECIPE_MALFORMED naming every field that is wrong. */
export async function readKernelRecipe(recipe: string): Promise<KernelRecipe> {
  const text = await readFile(recipe, 'utf8').catch((thrown: unknown) => {
    throw new KcareError('FILE_MISSING', `The recipe ${recipe} cannot be read.`, {}, { cause: thrown });
  });
  return parseYaml(recipeSchema, text, recipe);
}
