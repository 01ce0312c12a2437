// Lint rules: strict TypeScript, and layers that import downwards only.
import js from '@eslint/js';
import tseslint from 'typescript-eslint';
import { layers, pureLayers, quicklyLoadedLayers } from './layers.config.js';

const inputOutputModules = ['fs', 'fs/promises', 'net', 'http', 'https', 'child_process', 'worker_threads'];

const layerRules = layers.map((layer, index) => {
  const higher = layers.slice(index + 1);
  const patterns = higher.length
    ? [
        {
          regex: `^(\\.\\./)+(${higher.join('|')})/`,
          message: `src/${layer} must not import from a layer above it (see layers.config.js).`,
        },
      ]
    : [];
  if (pureLayers.includes(layer)) {
    patterns.push({
      regex: `^(node:)?(${inputOutputModules.join('|')})$`,
      message: `src/${layer} is free of input and output.`,
    });
  }
  if (quicklyLoadedLayers.includes(layer)) {
    patterns.push({ regex: '^zod', message: 'zod takes long to load: use src/base/shapes.ts.' });
  }
  return { files: [`src/${layer}/**/*.ts`], rules: { 'no-restricted-imports': ['error', { patterns }] } };
});

export default tseslint.config(
  { ignores: ['dist/', 'build/', '.cache/', 'node_modules/', 'coverage/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      'max-lines': ['error', { max: 500 }],
      eqeqeq: 'error',
    },
  },
  {
    files: ['**/*.{js,mjs}'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly' } },
  },
  ...layerRules,
);
