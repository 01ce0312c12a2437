// Ends of instructions with an operand relative to them, held against the assembler.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { parseElf, readSymbols, relocationsFor } from '../../src/elf/index.js';
import { distanceToEnd } from '../../src/kbuild/operand-end.js';

const instructions = [
  ...[
    'movl x(%rip), %eax',
    'movq x(%rip), %r12',
    'lea x(%rip), %rdi',
    'movzbl x(%rip), %eax',
    'cmp %eax, x(%rip)',
  ],
  ...['cmpb $0, x(%rip)', 'movb $1, x(%rip)', 'cmpl $5, x(%rip)', 'cmpl $500, x(%rip)', 'cmpq $500, x(%rip)'],
  ...['movl $7, x(%rip)', 'movq $7, x(%rip)', 'movw $7, x(%rip)', 'addw $500, x(%rip)', 'testb $4, x(%rip)'],
  ...[
    'testl $4, x(%rip)',
    'notl x(%rip)',
    'imul $5, x(%rip), %eax',
    'imul $500, x(%rip), %r9',
    'shll $3, x(%rip)',
  ],
  ...['lock xadd %eax, x(%rip)', 'lock cmpxchg16b x(%rip)', 'btsl $3, x(%rip)', 'lock btsq $3, x(%rip)'],
  ...[
    'call x',
    'jmp x',
    'jne x',
    'incl %gs:x(%rip)',
    'movl $3, %gs:x(%rip)',
    'cmovne x(%rip), %eax',
    'xchg %eax, x(%rip)',
  ],
];

test('the distance from an operand to the end of its instruction is what the assembler counted into the addend', () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'kcare-operands-'));
  const file = path.join(directory, 'code.o');
  try {
    execFileSync('as', ['-o', file, '-'], { input: `.text\nnop\nnop\nnop\n${instructions.join('\n')}\n` });
    const elf = parseElf(fs.readFileSync(file));
    const symbols = readSymbols(elf, '.symtab');
    const text = elf.sections.find(({ name }) => name === '.text');
    if (!text) throw new Error('no code');
    const relocations = relocationsFor(elf, text.index);
    expect(relocations).toHaveLength(instructions.length);
    relocations.forEach(({ offset, addend, symbolIndex }, index) => {
      expect(symbols[symbolIndex]?.name).toBe('x');
      expect(distanceToEnd(text.bytes, offset), instructions[index]).toBe(-addend);
    });
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
});
