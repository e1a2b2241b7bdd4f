//! Compiles the C++ shim against the libtorch that `LIBTORCH` names, and, if that has CUDA, the part for NCCL as a library
//! that the program carries within itself and loads on demand.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::exit;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    println!("cargo:rerun-if-changed=csrc");

    let libtorch = libtorch();
    let lib = libtorch.join("lib");
    let cuda = lib.join("libtorch_cuda.so").exists();

    compiler(&libtorch)
        .files(["csrc/shim.cpp", "csrc/operations.cpp"])
        .compile("nccl_rs_shim");
    // These are: loops over elements, of which compilers make vectors.
    compiler(&libtorch)
        .opt_level(3)
        .files(["csrc/convolution.cpp", "csrc/norm.cpp"])
        .compile("nccl_rs_kernels");
    // What becomes of an element is the same in a vector and beside one: each operation rounds by itself. Nobody asks for
    // errno after a root.
    compiler(&libtorch)
        .opt_level(3)
        .flag_if_supported("-ffp-contract=off")
        .flag_if_supported("-fno-math-errno")
        .file("csrc/update.cpp")
        .compile("nccl_rs_update");
    println!("cargo:rustc-check-cfg=cfg(cuda)");
    if cuda {
        println!("cargo:rustc-cfg=cuda");
        cuda_part(&libtorch, &lib);
    }

    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // For dependents' build scripts, as DEP_NCCL_RS_SHIM_LIB_DIR.
    println!("cargo:lib_dir={}", lib.display());
}

/// Links `csrc/nccl.cpp` to a shared library in `OUT_DIR`, which src/cuda.rs includes.
fn cuda_part(libtorch: &Path, lib: &Path) {
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        fail("OUT_DIR is not set; build with cargo");
    };
    let mut command = compiler(libtorch)
        .define("USE_C10D_NCCL", None)
        .pic(true)
        .flag("-fvisibility=hidden")
        .get_compiler()
        .to_command();
    for include in cuda_includes(libtorch) {
        command.arg(format!("-isystem{}", include.display()));
    }
    let linked = command
        .arg("-shared")
        .args(["-o".as_ref(), out.join("libnccl_rs_cuda.so").as_os_str()])
        .arg("csrc/nccl.cpp")
        .arg(format!("-L{}", lib.display()))
        .args(["-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"])
        .arg(format!("-Wl,-rpath,{}", lib.display()))
        .status();
    match linked {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "csrc/nccl.cpp did not compile ({status}): its errors are above"
        )),
        Err(problem) => fail(&format!(
            "the C++ compiler cannot be started ({problem}): install one, or name it in CXX"
        )),
    }
}

/// What all of the shim is compiled with.
fn compiler(libtorch: &Path) -> cc::Build {
    let mut shim = cc::Build::new();
    shim.cpp(true)
        .std("c++17")
        .include("csrc")
        // System headers: their warnings are not ours to mend.
        .flag(format!("-isystem{}", libtorch.join("include").display()))
        .flag(format!(
            "-isystem{}",
            libtorch.join("include/torch/csrc/api/include").display()
        ))
        .define("USE_C10D_GLOO", None)
        .define("_GLIBCXX_USE_CXX11_ABI", abi().as_str())
        .warnings(true)
        .flag_if_supported("-Wno-unused-parameter")
        // Little here is hot: every call leads to a collective or a backward pass.
        .opt_level(1);
    shim
}

fn libtorch() -> PathBuf {
    let Some(path) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        fail(
            "LIBTORCH is not set, so there is no libtorch to compile against; run `make setup`, \
             which installs torch 2.11.0 and sets it, or point LIBTORCH at an unpacked libtorch",
        );
    };
    let header = path.join("include/torch/csrc/distributed/c10d/reducer.hpp");
    if !header.exists() {
        fail(&format!(
            "LIBTORCH is {}, which lacks {}; run `make setup`, or point LIBTORCH at a libtorch \
             2.11.0 that was built with distributed support",
            path.display(),
            header.display()
        ));
    }
    path
}

fn abi() -> String {
    env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into())
}

/// Where the headers of CUDA's runtime and of NCCL are: beside torch in a pip installation, in the
/// toolkit's place otherwise.
fn cuda_includes(libtorch: &Path) -> Vec<PathBuf> {
    let wheels = libtorch.parent().map(|site| site.join("nvidia"));
    let toolkit = env::var_os("CUDA_HOME").map_or_else(|| "/usr/local/cuda".into(), PathBuf::from);
    let candidates: Vec<PathBuf> = wheels
        .iter()
        .flat_map(|nvidia| ["cu13/include", "nccl/include"].map(|path| nvidia.join(path)))
        .chain([toolkit.join("include")])
        .filter(|path| path.exists())
        .collect();
    for header in ["cuda_runtime_api.h", "nccl.h"] {
        let system = Path::new("/usr/include").join(header);
        if !candidates.iter().any(|path| path.join(header).exists()) && !system.exists() {
            fail(&format!(
                "libtorch at {} has CUDA, but {header} is nowhere to be found; run `make setup`, \
                 which installs the header packages, or use a libtorch without CUDA",
                libtorch.display()
            ));
        }
    }
    candidates
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={message}");
    // Cargo shows what a failed build script wrote to stderr.
    let _ = writeln!(std::io::stderr(), "{message}");
    exit(1)
}
