// Every fix of the recipes alone changes exactly the functions that are listed here; every other one is refused as it says.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/package-root.js';
import { buildRecipe } from '../../src/build/index.js';
import { parseRecipe } from '../../src/build/recipe.js';

/** Names as the compiler leaves them: what is inlined, split off or specialised in the shipped library. */
const changed: Record<string, Record<string, readonly string[]>> = {
  'openssl.yaml': {
    'CVE-2026-22796': ['replace PKCS7_digest_from_attributes'],
    'CVE-2025-69421': ['replace PKCS12_item_decrypt_d2i_ex'],
    'CVE-2025-9232': ['replace use_proxy'],
    'CVE-2025-69418': ['replace CRYPTO_ocb128_decrypt', 'replace CRYPTO_ocb128_encrypt'],
    'CVE-2026-45445': ['replace aes_ocb_cipher'],
    'CVE-2026-31790': ['replace rsakem_generate'],
    'CVE-2025-68160': ['replace linebuffer_write.part.0'],
    'CVE-2025-9230': ['replace ossl_cms_RecipientInfo_pwri_crypt'],
    'CVE-2026-42766': ['replace ossl_cms_RecipientInfo_pwri_crypt'],
    'CVE-2025-15467': ['replace evp_cipher_get_asn1_aead_params'],
    'CVE-2025-69419': ['replace OPENSSL_uni2utf8', 'replace bmp_to_utf8.part.0'],
    'CVE-2025-69420': ['replace TS_RESP_verify_signature'],
    'CVE-2026-7383': ['replace ASN1_mbstring_ncopy', 'replace out_utf8'],
    'CVE-2026-9076': ['replace ossl_cms_RecipientInfo_pwri_crypt'],
    'CVE-2026-22795': ['replace parse_bag.constprop.0'],
    'CVE-2026-28387': ['replace dane_match.isra.0'],
    'CVE-2026-28388': ['replace get_crl_sk'],
    'CVE-2026-28389': ['replace ossl_cms_dh_envelope', 'replace ossl_cms_ecdh_envelope'],
    'CVE-2026-28390': ['replace ossl_cms_rsa_envelope'],
    'CVE-2026-31789': ['replace buf2hexstr_sep', 'replace ossl_buf2hexstr_sep'],
    'CVE-2026-34180': ['replace asn1_d2i_ex_primitive'],
    'CVE-2026-34182': [
      'replace ossl_cms_AuthEnvelopedData_init_bio',
      'replace ossl_cms_EncryptedContent_init_bio',
      'replace ossl_cms_EncryptedData_init_bio',
      'replace ossl_cms_EnvelopedData_init_bio',
    ],
    'CVE-2026-42770': ['replace dh_set_peer'],
    'CVE-2026-45446': ['replace aes_siv_set_ctx_params'],
    'CVE-2026-45447': ['replace PKCS7_verify'],
  },
  'glibc.yaml': {
    'CVE-2026-0861': ['replace _int_memalign'],
    'CVE-2025-15281': ['replace wordexp'],
    'CVE-2025-0395': [
      'guard __assert_fail_base.cold',
      'replace __assert_fail_base',
      'replace __libc_message',
    ],
    'CVE-2025-8058': ['replace parse_expression'],
    'CVE-2026-0915': ['replace __GI__nss_dns_getnetbyaddr_r'],
    'CVE-2026-4437': ['replace __GI__nss_dns_gethostbyaddr2_r'],
    'CVE-2026-4438': ['replace __GI__nss_dns_gethostbyaddr2_r'],
  },
  'glibc-ibm1390.yaml': {
    'CVE-2026-4046': ['replace gconv'],
  },
  'glibc-ibm1399.yaml': {
    'CVE-2026-4046': ['replace gconv'],
  },
  'openssl-3.0.20.yaml': {
    'CVE-2026-42767': ['replace OSSL_CRMF_ENCRYPTEDVALUE_get1_encCert'],
    'CVE-2026-63072': ['replace cms_kek_cipher'],
    'CVE-2026-63074': ['replace ossl_cmp_msg_check_update'],
    'CVE-2026-63076': ['replace ossl_cmp_calc_protection'],
  },
  'openssl-libssl-3.0.20.yaml': {},
};

const directory = path.join(packageRoot(), 'recipes', 'debian12');
const output = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-changed-'));

afterAll(() => {
  fs.rmSync(output, { recursive: true, force: true });
});

test('every recipe is listed', () => {
  // Those of kernels: test/kbuild.
  const recipes = fs.readdirSync(directory).filter((name) => !name.startsWith('kernel'));
  expect(recipes.sort()).toEqual(Object.keys(changed).sort());
});

describe.each(Object.entries(changed))('%s', (file, fixes) => {
  const place = path.join(directory, file);
  const recipe = parseRecipe(fs.readFileSync(place, 'utf8'));

  test('every fix is listed', () => {
    expect(recipe.cves.map(({ id }) => id).sort()).toEqual(Object.keys(fixes).sort());
  });

  test.each(Object.entries(fixes))('%s changes %j', async (id, names) => {
    const { refusals, patch } = await buildRecipe(place, { cves: [id], output });
    expect(refusals).toEqual([]);
    expect(patch?.hunks.map(({ kind, name }) => `${kind} ${name}`).sort()).toEqual([...names].sort());
  });

  test.each(recipe.refused.map(({ id, code }) => [id, code]))('%s is refused: %s', async (id, code) => {
    const { outcome, refusals } = await buildRecipe(place, { cves: [id], output });
    expect(outcome).toBe('refused');
    expect(refusals.map((refusal) => refusal.code)).toContain(code);
  });
});
