// The environment of the processes that a measurement starts.

/**
 * Takes NODE_EXTRA_CA_CERTS away: with it, every start of Node.js parses a whole bundle of certificates (some 50 ms),
 * which says nothing about kcare.
 */
export function leaveOutExtraCertificates(): void {
  delete process.env['NODE_EXTRA_CA_CERTS'];
}
