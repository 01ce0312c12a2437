// Recipes: the facts from which a patch is built, read from YAML and checked.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
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

const editShape = {
  /** Source file, relative to the tree. */
  file: relativePath,
  /** The source file that is compiled, where `file` is only included by it. */
  includedBy: relativePath.optional(),
  /** Functions whose definition is taken from the fixed version. */
  functions: z.array(functionName).default([]),
  /** Functions that only the fixed version has and the fix needs. */
  adds: z.array(functionName).default([]),
  /** Macros whose definition is taken from the file, or where the running version has none, from a header. */
  macros: z.array(functionName).default([]),
  /**
   * C source behind that of the file, with hooks and update functions (include/kcare-patch.h); in a recipe the name of
   * a file beside it, which {@link readRecipe} replaces by its contents.
   */
  update: z.string().min(1).optional(),
  /** Threads that are inside the old functions may finish in them: old and new code may run side by side. */
  independent: z.boolean().default(false),
};

const takesSomething = [
  (edit: { functions: string[]; macros: string[] }): boolean =>
    edit.functions.length + edit.macros.length > 0,
  'functions: must name what is taken from the fixed version',
] as const;

const editSchema = z.strictObject(editShape).refine(...takesSomething);

const fixShape = {
  ...editShape,
  id: z.string().regex(/^[A-Z0-9][A-Za-z0-9._-]*$/, 'is no identifier such as CVE-2026-22796'),
  description: z.string().min(1),
  score: z.string().default(''),
  url: z.string().default(''),
  /** What the fix changes in further files. */
  also: z.array(editSchema).default([]),
};

const fixSchema = z.strictObject(fixShape).refine(...takesSomething);

const refusedSchema = z
  .strictObject({
    ...fixShape,
    /** What the build answers. */
    code: z.string().regex(/^[A-Z_]+$/, 'is no code of a refusal'),
    /** Why the fix cannot be carried, in words. */
    reason: z.string().min(1),
  })
  .refine(...takesSomething);

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
    /** Folder with the sources of the fixed version, relative to the recipe; the archive's otherwise. */
    fixedSource: relativePath.optional(),
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
    cves: z.array(fixSchema).default([]),
    /** Fixes that cannot be carried; built only when they are asked for, and then refused. */
    refused: z.array(refusedSchema).default([]),
  })
  .refine(({ cves, refused }) => cves.length + refused.length > 0, 'names no fix')
  .refine(({ cves, refused }) => {
    const ids = [...cves, ...refused].map(({ id }) => id);
    return new Set(ids).size === ids.length;
  }, 'an id appears twice');

export type Recipe = z.infer<typeof recipeSchema>;
export type Fix = z.infer<typeof fixSchema>;

/** The recipe in YAML `text`. Throws RECIPE_MALFORMED naming every field that is wrong. */
export const parseRecipe = (text: string, name = 'recipe'): Recipe => parseYaml(recipeSchema, text, name);

/** What the YAML `text` holds by `schema`. Throws RECIPE_MALFORMED naming every field that is wrong. */
export function parseYaml<Value>(schema: z.ZodType<Value>, text: string, name: string): Value {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new KcareError(
      'RECIPE_MALFORMED',
      `${name}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map(
    ({ path, message }) => `${path.join('.') || 'recipe'}: ${message}`,
  );
  throw new KcareError('RECIPE_MALFORMED', `${name}: ${problems.join('; ')}`, { problems });
}

export async function readRecipe(file: string): Promise<{ recipe: Recipe; text: string }> {
  const text = await readFile(file, 'utf8');
  const recipe = parseRecipe(text, file);
  const sources: string[] = [];
  const withUpdate = async <Edit extends { update?: string | undefined }>(edit: Edit): Promise<Edit> => {
    if (edit.update === undefined) return edit;
    const update = await readFile(path.join(path.dirname(file), edit.update), 'utf8');
    sources.push(update);
    return { ...edit, update };
  };
  const cves: Fix[] = [];
  for (const fix of recipe.cves) {
    const also = await Promise.all(fix.also.map(withUpdate));
    cves.push({ ...(await withUpdate(fix)), also });
  }
  return { recipe: { ...recipe, cves }, text: [text, ...sources].join('\0') };
}

/**
 * The recipe with only the fixes of `ids`, also of those that it refuses; all that can be carried when `ids` is empty.
 * Throws USAGE for an unknown id.
 */
export function selectFixes(recipe: Recipe, ids: readonly string[]): Recipe {
  const fixes: Fix[] = [...recipe.cves, ...recipe.refused];
  const unknown = ids.filter((id) => !fixes.some((fix) => fix.id === id));
  if (unknown.length > 0) throw new KcareError('USAGE', `The recipe has no ${unknown.join(', ')}.`);
  return ids.length === 0 ? recipe : { ...recipe, cves: fixes.filter((fix) => ids.includes(fix.id)) };
}
