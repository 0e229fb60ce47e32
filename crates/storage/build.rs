//! Links liblvm2cmd, which has no pkg-config file, and libdevmapper, which libcryptsetup brings: the linker finds both in
//! the sysroot.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-lib=dylib=lvm2cmd");
    println!("cargo:rustc-link-lib=dylib=devmapper");
}
