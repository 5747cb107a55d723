//! How is a small program for the kernel's virtual machine written down without a compiler? Pure.
//!
//! Encoding of instructions: RFC 9669 (BPF Instruction Set Architecture). What a program may read of a packet's descriptor
//! (`struct __sk_buff`), and the pseudo values of 64-bit immediates, are of `include/uapi/linux/bpf.h`.

/// A register. `R1` to `R5` are lost at a call, `R10` is the stack's upper end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Width of what is read or written, in the encoding of the instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte = 0x10,
    /// 2 bytes.
    Half = 0x08,
    /// 4 bytes.
    Word = 0x00,
    /// 8 bytes.
    Double = 0x18,
}

/// Arithmetic, in the encoding of the instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add = 0x00,
    Subtract = 0x10,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Xor = 0xa0,
    Move = 0xb0,
}

/// What makes a jump happen; comparisons are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
}

/// The second part of an operation or a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    Immediate(u32),
    Register(Register),
}

impl From<u32> for Operand {
    fn from(value: u32) -> Self {
        Self::Immediate(value)
    }
}

impl From<Register> for Operand {
    fn from(register: Register) -> Self {
        Self::Register(register)
    }
}

/// A place in a program that jumps lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// One instruction as the kernel reads it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    /// Destination in the low four bits on machines of little endian, source in the others; the other way round else.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// Number of a helper of the kernel: looks an element of a map up.
pub const LOOK_UP: u32 = 1;

const LOAD_IMMEDIATE_64: u8 = 0x18;
const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const ARITHMETIC_32: u8 = 0x04;
const ARITHMETIC_64: u8 = 0x07;
const JUMP: u8 = 0x05;
const JUMP_32: u8 = 0x06;
const FROM_REGISTER: u8 = 0x08;
const TO_LITTLE_ENDIAN: u8 = 0xd4;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source of a 64-bit immediate: a map, or the content of its first element.
const MAP: u8 = 1;
const MAP_VALUE: u8 = 2;

/// A program in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    /// Where each label is.
    places: Vec<Option<usize>>,
    /// Jumps and where they lead.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub fn new() -> Self {
        Self::default()
    }

    /// A label that is put somewhere later.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Jumps to the label lead to the next instruction.
    pub fn put(&mut self, label: Label) {
        if let Some(place) = self.places.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: u32) {
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        self.code.push(Instruction { code, registers, offset, immediate: immediate.cast_signed() });
    }

    /// `to` becomes what stands `offset` bytes after the place `from` points to.
    pub fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) {
        self.push(LOAD | width as u8, to as u8, from as u8, offset, 0);
    }

    /// What `from` holds is written `offset` bytes after the place `to` points to.
    pub fn store(&mut self, width: Width, to: Register, offset: i16, from: Register) {
        self.push(STORE | width as u8, to as u8, from as u8, offset, 0);
    }

    fn arithmetic(&mut self, class: u8, operation: Operation, to: Register, with: Operand) {
        let code = class & 0x07 | operation as u8;
        match with {
            Operand::Immediate(value) => self.push(code, to as u8, 0, 0, value),
            Operand::Register(from) => self.push(code | FROM_REGISTER, to as u8, from as u8, 0, 0),
        }
    }

    /// On 32 bits; the upper half becomes zero.
    pub fn word(&mut self, operation: Operation, to: Register, with: impl Into<Operand>) {
        self.arithmetic(ARITHMETIC_32, operation, to, with.into());
    }

    /// On 64 bits; an immediate is extended by its sign.
    pub fn double(&mut self, operation: Operation, to: Register, with: impl Into<Operand>) {
        self.arithmetic(ARITHMETIC_64, operation, to, with.into());
    }

    /// A value of `bits` (16 or 32) as it would be read on a machine of little endian.
    pub fn little_endian(&mut self, register: Register, bits: u32) {
        self.push(TO_LITTLE_ENDIAN, register as u8, 0, 0, bits);
    }

    /// If the low 32 bits of `left` compare so.
    pub fn jump_if(&mut self, condition: Condition, left: Register, right: impl Into<Operand>, label: Label) {
        self.compare(JUMP_32, condition, left, right.into(), label);
    }

    /// If all 64 bits of `left` compare so, as for places in memory.
    pub fn jump_if_double(&mut self, condition: Condition, left: Register, right: impl Into<Operand>, label: Label) {
        self.compare(JUMP, condition, left, right.into(), label);
    }

    fn compare(&mut self, class: u8, condition: Condition, left: Register, right: Operand, label: Label) {
        self.jumps.push((self.code.len(), label));
        let code = class | condition as u8;
        match right {
            Operand::Immediate(value) => self.push(code, left as u8, 0, 0, value),
            Operand::Register(from) => self.push(code | FROM_REGISTER, left as u8, from as u8, 0, 0),
        }
    }

    /// In any case.
    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP, 0, 0, 0, 0);
    }

    /// `to` becomes the map behind this descriptor, for a helper.
    pub fn map(&mut self, to: Register, descriptor: i32) {
        self.wide(to, MAP, descriptor);
    }

    /// `to` points to the content of the first element of an array map.
    pub fn map_value(&mut self, to: Register, descriptor: i32) {
        self.wide(to, MAP_VALUE, descriptor);
    }

    fn wide(&mut self, to: Register, source: u8, descriptor: i32) {
        self.push(LOAD_IMMEDIATE_64, to as u8, source, 0, descriptor.cast_unsigned());
        self.push(0, 0, 0, 0, 0);
    }

    /// Arguments are in `R1` to `R5`, the result in `R0`.
    pub fn call(&mut self, helper: u32) {
        self.push(CALL, 0, 0, 0, helper);
    }

    /// The program ends; `R0` is its result.
    pub fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0, 0);
    }

    /// The program. `None`: it is so long that a jump does not reach its label, or a label was put nowhere.
    pub fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in &self.jumps {
            let place = self.places.get(label.0).copied().flatten()?;
            let distance = i64::try_from(place).ok()? - i64::try_from(*at).ok()? - 1;
            self.code.get_mut(*at)?.offset = i16::try_from(distance).ok()?;
        }
        Some(self.code)
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use Register::{R0, R1, R2, R10};

    fn bytes(code: &[Instruction]) -> Vec<[u8; 8]> {
        let one = |i: &Instruction| {
            let [o0, o1] = i.offset.to_le_bytes();
            let [a, b, c, d] = i.immediate.to_le_bytes();
            [i.code, i.registers, o0, o1, a, b, c, d]
        };
        code.iter().map(one).collect()
    }

    /// Bytes by hand from the tables of RFC 9669.
    #[test]
    fn instructions_are_encoded_as_the_standard_says() {
        let mut a = Assembler::new();
        let end = a.label();
        a.load(Width::Half, R0, R1, 12);
        a.store(Width::Word, R10, -4, R2);
        a.word(Operation::Move, R0, 0xffff_ffff_u32);
        a.double(Operation::Add, R0, R2);
        a.little_endian(R2, 16);
        a.jump_if(Condition::NotEqual, R0, 8, end);
        a.jump_if_double(Condition::Greater, R0, R2, end);
        a.map_value(R1, 7);
        a.call(LOOK_UP);
        a.jump(end);
        a.put(end);
        a.exit();
        assert_eq!(
            bytes(&a.finish().unwrap()),
            [
                [0x69, 0x10, 12, 0, 0, 0, 0, 0],
                [0x63, 0x2a, 0xfc, 0xff, 0, 0, 0, 0],
                [0xb4, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
                [0x0f, 0x20, 0, 0, 0, 0, 0, 0],
                [0xd4, 0x02, 0, 0, 16, 0, 0, 0],
                [0x56, 0x00, 5, 0, 8, 0, 0, 0],
                [0x2d, 0x20, 4, 0, 0, 0, 0, 0],
                [0x18, 0x21, 0, 0, 7, 0, 0, 0],
                [0; 8],
                [0x85, 0x00, 0, 0, 1, 0, 0, 0],
                [0x05, 0x00, 0, 0, 0, 0, 0, 0],
                [0x95, 0x00, 0, 0, 0, 0, 0, 0],
            ]
        );
    }

    #[test]
    fn a_jump_too_far_or_to_nowhere_is_no_program() {
        let mut a = Assembler::new();
        let nowhere = a.label();
        a.jump(nowhere);
        assert!(a.finish().is_none());
        let mut a = Assembler::new();
        let end = a.label();
        a.jump(end);
        (0..40_000).for_each(|_| a.exit());
        a.put(end);
        assert!(a.finish().is_none());
    }
}
