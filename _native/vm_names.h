/* The lists of `opcodes.h` as texts: for Python, the disassembler and the docs. */
#ifndef PORTCULLIS_VM_NAMES_H
#define PORTCULLIS_VM_NAMES_H

#include "opcodes.h"

#define VM_NAME(name, ...) #name,
#define VM_OPERANDS(name, operands, pops, pushes, meaning) operands,
#define VM_POPS(name, operands, pops, pushes, meaning) pops,
#define VM_PUSHES(name, operands, pops, pushes, meaning) pushes,
#define VM_MEANING(name, operands, pops, pushes, meaning) meaning,
#define VM_ERROR_CODE(name, code, meaning) code,
#define VM_ERROR_MEANING(name, code, meaning) meaning,
#define VM_FUNCTION_COUNT(name, count) count,
static const char *const vm_opcode_names[] = { VM_OPCODES(VM_NAME) };
static const char *const vm_opcode_operands[] = { VM_OPCODES(VM_OPERANDS) };
static const int vm_opcode_pops[] = { VM_OPCODES(VM_POPS) };
static const int vm_opcode_pushes[] = { VM_OPCODES(VM_PUSHES) };
static const char *const vm_opcode_meanings[] = { VM_OPCODES(VM_MEANING) };
static const char *const vm_error_codes[] = { VM_ERRORS(VM_ERROR_CODE) };
static const char *const vm_error_meanings[] = { VM_ERRORS(VM_ERROR_MEANING) };
static const char *const vm_function_names[] = { VM_FUNCTIONS(VM_NAME) };
static const int vm_function_counts[] = { VM_FUNCTIONS(VM_FUNCTION_COUNT) };

#endif
