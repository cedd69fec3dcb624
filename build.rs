//! Compiles `kernels/*.cu`: by nvcc to one fatbin each, embedded in the library; and, with the feature `emu`, by the C++
//! compiler for tests without a GPU. Nothing here looks at the local GPU or at a network.
//!
//! `SCRUBJAY_CUDA` is `auto` (kernels where nvcc 13.0 is found, else a CPU-only build and one warning), `require` (no
//! nvcc is a build failure) or `off`. Kernels are built for sm_80 and sm_90a, and as PTX for cards that come later; those
//! of `*_sm90.cu` for sm_90a alone. `SCRUBJAY_CUDA_ARCHS` adds architectures, as in `100a;120`.
//! `SCRUBJAY_EMU_SANITIZE` is `address` or `thread`: the emulated kernels are instrumented.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Its fatbins run on drivers of the 580 series and later.
const NVCC_RELEASE: &str = "13.0";
const ARCHITECTURES: [&str; 2] = ["80", "90a"];
const FLAGS: [&str; 7] =
    ["-fatbin", "-std=c++17", "-O3", "-lineinfo", "-Werror", "all-warnings", "-Ikernels"];
/// For the two architectures that kernels are tuned for. Others may spill registers.
const STRICT: [&str; 2] = ["-Xptxas", "-warn-spills,-Werror"];
/// ptxas only informs where it serialises wgmma or ignores setmaxnreg: here that is an error.
const REFUSED: [&str; 2] = ["C7510", "C7508"];
const VARIABLES: [&str; 14] = [
    "SCRUBJAY_CUDA",
    "SCRUBJAY_CUDA_ARCHS",
    "SCRUBJAY_EMU_SANITIZE",
    "SCRUBJAY_NVCC",
    "NVCC",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_TOOLKIT_ROOT_DIR",
    "PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "DOCS_RS",
    "NVCC_CCBIN",
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels"); // every kernel and header below it
    VARIABLES.iter().for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
    println!("cargo::rustc-check-cfg=cfg(scrubjay_sanitize, values(\"address\", \"thread\"))");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error={reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run by cargo")?);
    let kernels = sources()?;
    write(&out.join("tiles.rs"), &tiles(&read(Path::new("kernels/tiles.h"))?)?)?;
    write(&out.join("fatbins.rs"), &cuda(&kernels, &out)?)?;
    match env::var_os("CARGO_FEATURE_EMU") {
        Some(_) => emulated(&kernels),
        None => Ok(()),
    }
}

fn sources() -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir("kernels").map_err(|e| format!("kernels: {e}"))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "cu"));
    found.sort();
    Ok(found)
}

/// `constexpr uint32_t NAME = VALUE;  // why` of tiles.h, as Rust.
fn tiles(header: &str) -> Result<String, String> {
    let mut rust = String::new();
    for line in header.lines() {
        let Some(rest) = line.strip_prefix("constexpr uint32_t ") else { continue };
        let (name, rest) = rest.split_once(" = ").ok_or_else(|| format!("kernels/tiles.h: {line}"))?;
        let (value, why) = rest.split_once(';').ok_or_else(|| format!("kernels/tiles.h: {line}"))?;
        let value: u32 = value.parse().map_err(|_| format!("kernels/tiles.h: {line}: not a number"))?;
        let why = why.trim().trim_start_matches("//").trim();
        let _ = writeln!(rust, "/// `{name}` of kernels/tiles.h. {why}\npub const {name}: u32 = {value};");
    }
    Ok(rust)
}

/// The table of fatbins as Rust text, or an empty one with the reason.
fn cuda(kernels: &[PathBuf], out: &Path) -> Result<String, String> {
    let mode = env::var("SCRUBJAY_CUDA").unwrap_or_else(|_| "auto".into());
    let nvcc = match mode.as_str() {
        _ if env::var_os("DOCS_RS").is_some() => Err("documentation build".to_string()),
        "off" => Err("SCRUBJAY_CUDA=off".to_string()),
        "auto" | "require" => find_nvcc(),
        other => return Err(format!("SCRUBJAY_CUDA={other}: expected auto, require or off")),
    };
    let nvcc = match nvcc {
        Ok(nvcc) => nvcc,
        Err(reason) if mode == "require" => return Err(format!("SCRUBJAY_CUDA=require, but {reason}")),
        Err(reason) => {
            if mode == "auto" && env::var_os("DOCS_RS").is_none() {
                println!("cargo::warning=built without CUDA kernels, for the CPU only: {reason}");
            }
            return Ok(format!(
                "pub const FATBINS: &[(&str, &[u8])] = &[];\npub const ARCHITECTURES: &str = \"\";\npub const MISSING: &str = {reason:?};\n"
            ));
        }
    };
    println!("cargo::rerun-if-changed={}", nvcc.display());
    let added = env::var("SCRUBJAY_CUDA_ARCHS").unwrap_or_default();
    let mut added: Vec<&str> =
        added.split([';', ',']).map(str::trim).filter(|arch| !arch.is_empty()).collect();
    added.retain(|arch| !ARCHITECTURES.contains(arch));
    added.sort_unstable();
    added.dedup();
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1).min(kernels.len());
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut result = Ok(());
        while let (Ok(()), Some(kernel)) = (&result, kernels.get(next.fetch_add(1, Ordering::Relaxed))) {
            result = compile(&nvcc, kernel, &added, out);
        }
        result
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| Err("a compile thread died".into())))
    })?;
    let mut table = "pub const FATBINS: &[(&str, &[u8])] = &[\n".to_string();
    for kernel in kernels {
        let stem = stem(kernel);
        let _ = writeln!(
            table,
            "    ({stem:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{stem}.fatbin\"))),"
        );
    }
    let mut archs: Vec<String> =
        ARCHITECTURES.iter().chain(&added).map(|arch| format!("sm_{arch}")).collect();
    archs.push("PTX of compute_80".into());
    let _ = writeln!(
        table,
        "];\npub const ARCHITECTURES: &str = {:?};\npub const MISSING: &str = \"\";",
        archs.join(", ")
    );
    Ok(table)
}

/// One kernel file to its fatbin. What is tuned for has no spills; further architectures are added afterwards.
fn compile(nvcc: &Path, kernel: &Path, added: &[&str], out: &Path) -> Result<(), String> {
    let code = |arch: &str| format!("-gencode=arch=compute_{arch},code=sm_{arch}");
    let sm90 = stem(kernel).ends_with("_sm90");
    let mut codes = vec![code("90a")];
    if !sm90 {
        codes.extend([code("80"), "-gencode=arch=compute_80,code=compute_80".into()]);
    }
    if sm90 {
        // Not compressed, so that the instructions can be counted.
        let flags = ["-no-compress", "-Xptxas", "-warn-spills,-warn-lmem-usage,-Werror"];
        run(nvcc, kernel, &flags, &codes, out)?;
        return uses_sm90(kernel, &out.join(format!("{}.fatbin", stem(kernel))));
    }
    run(nvcc, kernel, &STRICT, &codes, out)?;
    if added.is_empty() {
        return Ok(());
    }
    codes.extend(added.iter().map(|arch| code(arch)));
    run(nvcc, kernel, &[], &codes, out)
}

fn run(nvcc: &Path, kernel: &Path, flags: &[&str], codes: &[String], out: &Path) -> Result<(), String> {
    let mut command = Command::new(nvcc);
    command.args(FLAGS).args(flags).args(codes);
    command.arg(kernel).arg("-o").arg(out.join(format!("{}.fatbin", stem(kernel))));
    let run = command.output().map_err(|e| format!("{}: {e}", nvcc.display()))?;
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if run.status.success() && !REFUSED.iter().any(|code| said.contains(code)) {
        return Ok(());
    }
    eprintln!("{said}");
    Err(format!("{}: nvcc failed: {}", kernel.display(), said.lines().next().unwrap_or("no message")))
}

/// Fails unless the machine code of a `*_sm90.cu` has the instructions that the kernel is written for: wgmma as HGMMA, and
/// copies by tensor maps as UTMALDG (of tiles, of im2col).
fn uses_sm90(kernel: &Path, fatbin: &Path) -> Result<(), String> {
    let (source, code) = (read(kernel)?, fs::read(fatbin).map_err(|e| format!("{}: {e}", fatbin.display()))?);
    let found = instructions(&code).ok_or_else(|| format!("{}: no machine code", fatbin.display()))?;
    for (call, name, opcode) in [
        ("wgmma<", "HGMMA", 0x9f0),
        ("tensor_load(", "UTMALDG", 0x5b4),
        ("image_load(", "UTMALDG.IM2COL", 0x3b4),
    ] {
        if source.contains(call) && !found.contains(&opcode) {
            return Err(format!(
                "{}: {call} is called, but its machine code has no {name}",
                kernel.display()
            ));
        }
    }
    Ok(())
}

/// The opcodes, the low 12 bits of 16 bytes, of all instructions of the first ELF file within these bytes.
fn instructions(bytes: &[u8]) -> Option<Vec<u64>> {
    let start = bytes.windows(4).position(|four| four == b"\x7fELF")?;
    let elf = &bytes[start..];
    let number = |at: usize, len: usize| {
        let bytes = elf.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (table, size, count) =
        (number(0x28, 8)? as usize, number(0x3a, 2)? as usize, number(0x3c, 2)? as usize);
    let mut opcodes = vec![];
    for section in (0..count).map(|i| table + i * size) {
        let (kind, flags) = (number(section + 4, 4)?, number(section + 8, 8)?);
        if kind == 1 && flags & 4 != 0 {
            let (at, len) = (number(section + 0x18, 8)? as usize, number(section + 0x20, 8)? as usize);
            opcodes.extend((0..len).step_by(16).filter_map(|i| Some(number(at + i, 8)? & 0xfff)));
        }
    }
    Some(opcodes)
}

/// The first nvcc of the pinned release, in the documented order. One that a user names must be of that release.
fn find_nvcc() -> Result<PathBuf, String> {
    for name in ["SCRUBJAY_NVCC", "NVCC"] {
        if let Some(path) = env::var_os(name).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            return match release(&path).as_deref() {
                Some(NVCC_RELEASE) => Ok(path),
                Some(other) => {
                    Err(format!("{name}={} is release {other}, not {NVCC_RELEASE}", path.display()))
                }
                None => Err(format!("{name}={} does not run", path.display())),
            };
        }
    }
    let mut others = Vec::new();
    for path in candidates() {
        match release(&path) {
            Some(found) if found == NVCC_RELEASE => return Ok(path),
            Some(found) => others.push(format!("{} is release {found}", path.display())),
            None => (),
        }
    }
    let seen = if others.is_empty() { String::new() } else { format!(" ({})", others.join("; ")) };
    Err(format!(
        "no nvcc {NVCC_RELEASE} was found{seen}; install CUDA {NVCC_RELEASE}, or `pip install 'nvidia-cuda-nvcc=={NVCC_RELEASE}.*' \
         'nvidia-cuda-crt=={NVCC_RELEASE}.*' 'nvidia-nvvm=={NVCC_RELEASE}.*' 'nvidia-cuda-runtime=={NVCC_RELEASE}.*' \
         'nvidia-cuda-cccl=={NVCC_RELEASE}.*'`, or name one in SCRUBJAY_NVCC"
    ))
}

/// Where nvcc may be: the toolkit's variables, PATH, the usual folders, pip's site-packages.
fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"] {
        found.extend(env::var_os(name).map(|home| Path::new(&home).join("bin/nvcc")));
    }
    if let Some(path) = env::var_os("PATH") {
        found.extend(env::split_paths(&path).map(|dir| dir.join("nvcc")));
    }
    found.push("/usr/local/cuda/bin/nvcc".into());
    found.extend(matching(Path::new("/usr/local"), "cuda-").into_iter().map(|dir| dir.join("bin/nvcc")));
    found.push("/opt/cuda/bin/nvcc".into());
    let mut sites = Vec::new();
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        if let Some(home) = env::var_os(name) {
            let pythons = matching(&Path::new(&home).join("lib"), "python3");
            sites.extend(pythons.into_iter().map(|dir| dir.join("site-packages")));
        }
    }
    found.retain(|path| path.is_file());
    let purelib = ["-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"];
    if let Ok(python) = Command::new("python3").args(purelib).output() {
        sites.push(PathBuf::from(String::from_utf8_lossy(&python.stdout).trim()));
    }
    for site in sites {
        let toolkits = matching(&site.join("nvidia"), "cu").into_iter().map(|dir| dir.join("bin/nvcc"));
        found.extend(toolkits.filter(|path| path.is_file()));
    }
    found
}

/// The folders in `dir` whose names begin with `prefix`, sorted.
fn matching(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let begins = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    found.retain(begins);
    found.sort();
    found
}

/// The release of an nvcc, as in `13.0`.
fn release(nvcc: &Path) -> Option<String> {
    let run = Command::new(nvcc).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    Some(text.split_once("release ")?.1.split_once(',')?.0.to_string())
}

/// The kernels as host code. A sanitizer instruments them, not the scheduler.
fn emulated(kernels: &[PathBuf]) -> Result<(), String> {
    let base = || {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").debug(true).include("kernels");
        build.flag("-ffp-contract=off").flag_if_supported("-Wno-psabi");
        build
    };
    let mut build = base();
    build.opt_level(2).files(kernels).flag("-xc++");
    if let Ok(sanitizer) = env::var("SCRUBJAY_EMU_SANITIZE") {
        let runtime = match sanitizer.as_str() {
            "address" => "asan",
            "thread" => "tsan",
            other => return Err(format!("SCRUBJAY_EMU_SANITIZE={other}: expected address or thread")),
        };
        println!("cargo::rustc-cfg=scrubjay_sanitize=\"{sanitizer}\"");
        build.opt_level(1).flag(format!("-fsanitize={sanitizer}"));
        build.flag("-fsanitize=undefined").flag("-fsanitize-undefined-trap-on-error");
        // rustc links with -nodefaultlibs, so the runtime is named here, and what starts it comes first.
        println!("cargo::rustc-link-arg=-l:lib{runtime}_preinit.o");
        println!("cargo::rustc-link-arg=-Wl,--push-state,--whole-archive,-l:lib{runtime}.a,--pop-state");
    }
    build.try_compile("scrubjay_kernels").map_err(|e| format!("the emulated kernels: {e}"))?;
    base()
        .opt_level(3)
        .files(["emu", "sm90", "tensor"].map(|name| format!("kernels/emu/{name}.cc")))
        .try_compile("scrubjay_emu")
        .map_err(|e| format!("the emulator: {e}"))
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
