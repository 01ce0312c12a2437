// Recipes: the facts from which a patch is built, read from YAML and checked.
import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { z } from 'zod';
import { KcareError } from '../base/errors.js';

const relativePath = z
  .string()
  .min(1)
  .refine(
    (text) => !text.startsWith('/') && !text.split('/').includes('..'),
    'must be a path inside the tree',
  );
const packageName = z.string().regex(/^[a-z0-9][a-z0-9+.-]+$/, 'is no Debian package name');
const packageVersion = z.string().regex(/^[0-9][A-Za-z0-9.+:~-]*$/, 'is no Debian version');
const functionName = z.string().regex(/^[A-Za-z_]\w*$/, 'is no C function name');

const fixSchema = z.strictObject({
  id: z.string().regex(/^[A-Z0-9][A-Za-z0-9._-]*$/, 'is no identifier such as CVE-2026-22796'),
  description: z.string().min(1),
  score: z.string().default(''),
  url: z.string().default(''),
  /** Source file, relative to the tree. */
  file: relativePath,
  /** Functions whose definition is taken from the fixed version. */
  functions: z.array(functionName).min(1),
  /** Functions that only the fixed version has and the fix needs. */
  adds: z.array(functionName).default([]),
});

const recipeSchema = z
  .strictObject({
    name: z.string().regex(/^[a-z0-9][a-z0-9._-]*$/, 'must be lower-case letters, digits, dots, dashes'),
    description: z.string().min(1),
    level: z.int().positive(),
    date: z.iso.datetime(),
    package: z.strictObject({
      source: packageName,
      binary: packageName,
      /** Path of the object in the binary package. */
      object: relativePath,
    }),
    runs: packageVersion,
    fixed: packageVersion,
    build: z.strictObject({
      /** Directory in the tree in which all commands run and to which compile commands are relative. */
      directory: relativePath,
      /** Environment beside that of dpkg-buildflags and SOURCE_DATE_EPOCH. */
      environment: z.record(z.string(), z.string()).default({}),
      /** Shell commands that configure the tree and make generated headers. */
      configure: z.array(z.string()).min(1),
      /** Shell command that prints the compile commands without running them. */
      commands: z.string().min(1),
    }),
    cves: z.array(fixSchema).min(1),
  })
  .refine(
    (recipe) => new Set(recipe.cves.map(({ id }) => id)).size === recipe.cves.length,
    'an id appears twice',
  );

export type Recipe = z.infer<typeof recipeSchema>;
export type Fix = z.infer<typeof fixSchema>;

/** The recipe in YAML `text`. Throws RECIPE_MALFORMED naming every field that is wrong. */
export function parseRecipe(text: string, name = 'recipe'): Recipe {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new KcareError(
      'RECIPE_MALFORMED',
      `${name}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const result = recipeSchema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map(
    ({ path, message }) => `${path.join('.') || 'recipe'}: ${message}`,
  );
  throw new KcareError('RECIPE_MALFORMED', `${name}: ${problems.join('; ')}`, { problems });
}

export async function readRecipe(file: string): Promise<{ recipe: Recipe; text: string }> {
  const text = await readFile(file, 'utf8');
  return { recipe: parseRecipe(text, file), text };
}

/** The recipe with only the fixes of `ids`; all of them when `ids` is empty. Throws USAGE for an unknown id. */
export function selectFixes(recipe: Recipe, ids: readonly string[]): Recipe {
  const unknown = ids.filter((id) => !recipe.cves.some((fix) => fix.id === id));
  if (unknown.length > 0) throw new KcareError('USAGE', `The recipe has no ${unknown.join(', ')}.`);
  return ids.length === 0 ? recipe : { ...recipe, cves: recipe.cves.filter((fix) => ids.includes(fix.id)) };
}
