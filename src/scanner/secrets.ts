// What in a configuration must not leave this host, and how it is taken out of a text.

/** Settings whose values are URLs: where they lead is worth knowing, what lets one in is not. */
const urlKeys = new Set(['PATCH_SERVER', 'REGISTRATION_URL', 'HTTP_PROXY', 'HTTPS_PROXY']);
const mask = '***';
/** Shorter ones would be found by chance in any text; they are masked only where they are set. */
const shortestSought = 4;

export interface Setting {
  readonly key: string;
  readonly value: string;
}

/** Settings as they may be shown. The value of a key that is not one of `knownKeys` may be anything, so it is not shown. */
export function maskSettings(settings: readonly Setting[], knownKeys: readonly string[]): Setting[] {
  return settings.map(({ key, value }) => ({ key, value: maskValue(key, value, knownKeys) }));
}

function maskValue(key: string, value: string, knownKeys: readonly string[]): string {
  const name = key.toUpperCase();
  if (value === '') return value;
  if (urlKeys.has(name)) return maskUrl(value);
  return knownKeys.includes(key) ? value : mask;
}

/** User and password, all values of the query, the fragment, and parts of the path that look like keys. */
function maskUrl(text: string): string {
  if (text.startsWith('/')) return text;
  if (!URL.canParse(text)) return mask;
  const url = new URL(text);
  const user = url.username === '' && url.password === '' ? '' : `${mask}@`;
  const path = url.pathname
    .split('/')
    .map((part) => (isKey(part) ? mask : part))
    .join('/');
  const query = [...url.searchParams.keys()].map((name) => `${name}=${mask}`).join('&');
  return `${url.protocol}//${user}${url.host}${path}${query === '' ? '' : `?${query}`}${url.hash === '' ? '' : `#${mask}`}`;
}

function isKey(part: string): boolean {
  return part.length >= 12 && /\d/.test(part) && /[A-Za-z]/.test(part);
}

/** The secrets in settings, in all spellings in which a log may hold them. */
export function secretsOf(settings: readonly Setting[], knownKeys: readonly string[]): string[] {
  const secrets = settings.flatMap(({ key, value }) => {
    if (urlKeys.has(key.toUpperCase())) return secretsOfUrl(value);
    return knownKeys.includes(key) ? [] : [value];
  });
  const spellings = secrets.flatMap((secret) => [
    secret,
    JSON.stringify(secret).slice(1, -1),
    encodeURIComponent(secret),
    ...decoded(secret),
  ]);
  return [...new Set(spellings)]
    .filter(({ length }) => length >= shortestSought)
    .sort((left, right) => right.length - left.length);
}

function secretsOfUrl(text: string): string[] {
  if (text.startsWith('/')) return [];
  if (!URL.canParse(text)) return [text];
  const { username, password, searchParams, hash, pathname } = new URL(text);
  const credentials = [...decoded(username), ...decoded(password)].join(':');
  return [
    // A user without a password is a token.
    ...(password === '' ? [username] : [password]),
    ...(credentials === '' ? [] : [credentials, Buffer.from(credentials).toString('base64')]),
    ...searchParams.values(),
    hash.slice(1),
    ...pathname.split('/').filter(isKey),
  ];
}

function decoded(text: string): string[] {
  try {
    return [decodeURIComponent(text)];
  } catch {
    return [];
  }
}

/** `text` without `secrets`, and without users and passwords of any URL. */
export function withoutSecrets(text: string, secrets: readonly string[]): string {
  const clean = secrets.reduce((rest, secret) => rest.replaceAll(secret, mask), text);
  return clean.replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@"'<>]+@/gi, `$1${mask}@`);
}
