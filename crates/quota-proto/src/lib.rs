//! The wire: messages, clients and servers generated from `proto/` by `cargo xtask codegen`, and
//! the descriptor set that reflection serves. Generated code is committed so that a build needs no
//! compiler for `.proto` files and a reviewer sees what a change of the wire does.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; `cargo xtask tidy` demands a comment on every item of proto/ instead"
)]

mod verdict;

/// Package `quota.v1`.
pub mod v1 {
    include!("generated/quota.v1.rs");
}

/// The encoded `google.protobuf.FileDescriptorSet` of `proto/`, imports included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
