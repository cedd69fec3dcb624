//! Models by name, from the caches of Hugging Face's and PyTorch's own libraries. Nothing is downloaded: what is not in a
//! cache is refused with the command that fetches it.
//!
//! ```text
//! hf:ORG/NAME[@REVISION]    a snapshot of models--ORG--NAME in $HF_HUB_CACHE, $HF_HOME/hub, or ~/.cache/huggingface/hub
//! timm:NAME.TAG[@REVISION]  the same as hf:timm/NAME.TAG
//! torchvision:NAME          the only file NAME-########.pth in $TORCH_HOME/hub/checkpoints, or ~/.cache/torch/hub/checkpoints;
//!                           or such a file's own name
//! ```
//!
//! A revision is a branch or tag that the cache knows, by default `main`, or a commit. What is there as a file or directory of
//! that name is taken for what it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The file or directory of a model that may be given by name; `has_weights` tells whether a directory is whole.
///
/// # Errors
/// Where a name is malformed or not in its cache, or stands for several files there.
pub(super) fn locate(path: &Path, has_weights: Weights) -> Result<PathBuf> {
    locate_by(path, has_weights, &|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

type Weights<'a> = &'a dyn Fn(&Path) -> bool;
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn locate_by(path: &Path, has_weights: Weights, environment: Environment) -> Result<PathBuf> {
    let Some((scheme, name)) = path.to_str().and_then(|text| text.split_once(':')) else {
        return Ok(path.into());
    };
    if path.exists() {
        return Ok(path.into());
    }
    match scheme {
        "hf" => hugging_face(path, name, has_weights, environment),
        "timm" => hugging_face(path, &format!("timm/{name}"), has_weights, environment),
        "torchvision" => torchvision(path, name, environment),
        _ => Ok(path.into()),
    }
}

/// A folder that a variable names, or one under the cache of the user.
fn cache(environment: Environment, under: &str) -> Option<PathBuf> {
    let of_user = environment("XDG_CACHE_HOME").map(PathBuf::from);
    let of_user = of_user.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".cache")));
    Some(of_user?.join(under))
}

/// Whether a part of a name is one, and no way out of the cache.
fn is_part(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !part.is_empty() && part.chars().all(known) && !part.starts_with('.') && !part.contains("..")
}

fn hugging_face(path: &Path, name: &str, has_weights: Weights, environment: Environment) -> Result<PathBuf> {
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 || !parts.iter().chain(&[revision]).all(|part| part.split('/').all(is_part)) {
        return Err(Error::checkpoint(path, "is no name of a model, as hf:ORG/NAME or hf:ORG/NAME@REVISION"));
    }
    let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].iter().find_map(|name| environment(name));
    let home = || environment("HF_HOME").map(PathBuf::from).or_else(|| cache(environment, "huggingface"));
    let hub = named.map(PathBuf::from).or_else(|| Some(home()?.join("hub")));
    let hub =
        hub.ok_or_else(|| Error::checkpoint(path, "neither HF_HUB_CACHE nor HOME tells where the cache is"))?;
    let model = hub.join(format!("models--{}", parts.join("--")));
    let commit = std::fs::read_to_string(model.join("refs").join(revision)).ok();
    let commit = commit.as_deref().map(str::trim).filter(|commit| is_part(commit)).unwrap_or(revision);
    let snapshot = model.join("snapshots").join(commit);
    if snapshot.is_dir() && has_weights(&snapshot) {
        return Ok(snapshot);
    }
    let chosen = if revision == "main" { String::new() } else { format!(" --revision {revision}") };
    let mut reason = match (model.is_dir(), snapshot.is_dir()) {
        (_, true) => format!("has no weights in the cache, in {}", snapshot.display()),
        (true, false) => format!("has no revision `{revision}` in the cache, in {}", model.display()),
        (false, false) => format!("is not in the cache {}", hub.display()),
    };
    reason += &format!("; `hf download {name}{chosen}` fetches it");
    let others = like(&hub, &format!("models--{}.", parts.join("--")), "");
    if !others.is_empty() {
        let others: Vec<String> =
            others.iter().map(|name| name.replacen("models--timm--", "timm:", 1)).collect();
        reason += &format!("; the cache has {}", others.join(", "));
    }
    Err(Error::checkpoint(path, reason))
}

fn torchvision(path: &Path, name: &str, environment: Environment) -> Result<PathBuf> {
    if !is_part(name) {
        return Err(Error::checkpoint(path, "is no name of a model, as torchvision:resnet50"));
    }
    let torch = environment("TORCH_HOME").map(PathBuf::from).or_else(|| cache(environment, "torch"));
    let torch = torch
        .ok_or_else(|| Error::checkpoint(path, "neither TORCH_HOME nor HOME tells where the cache is"))?;
    let folder = torch.join("hub/checkpoints");
    if folder.join(name).is_file() {
        return Ok(folder.join(name));
    }
    let files = like(&folder, &format!("{name}-"), ".pth");
    match &files[..] {
        [file] => Ok(folder.join(file)),
        [] => {
            let command =
                format!("python -c 'import torchvision; torchvision.models.{name}(weights=\"DEFAULT\")'");
            let reason = format!("is not in the cache {}; `{command}` fetches it", folder.display());
            Err(Error::checkpoint(path, reason))
        }
        _ => {
            let names: Vec<String> = files.iter().map(|file| format!("torchvision:{file}")).collect();
            Err(Error::checkpoint(
                path,
                format!("stands for several files of the cache: {}", names.join(", ")),
            ))
        }
    }
}

/// The names in a folder that begin and end so, and between have nothing that a longer name of a model would have, in order.
fn like(folder: &Path, begin: &str, end: &str) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let between = |name: &str| -> bool {
        let inner = name.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
        inner.is_some_and(|inner| {
            !inner.is_empty() && (end.is_empty() || inner.chars().all(|c| c.is_ascii_hexdigit()))
        })
    };
    let mut names: Vec<String> = names.filter(|name| between(name)).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_weights(folder: &Path) -> bool {
        ["model.safetensors", "pytorch_model.bin"].iter().any(|name| folder.join(name).is_file())
    }

    /// A made-up cache, and what a name stands for in it.
    struct Cache(tempfile::TempDir);

    impl Cache {
        fn file(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn find(&self, name: &str, variable: &str) -> std::result::Result<String, String> {
            let set = |asked: &str| (asked == variable).then(|| self.0.path().into());
            let found = locate_by(Path::new(name), &has_weights, &set);
            let inside =
                |path: PathBuf| path.strip_prefix(self.0.path()).unwrap().to_string_lossy().into_owned();
            found.map(inside).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn a_name_is_found_in_the_cache_that_the_environment_tells() {
        let cache = Cache(tempfile::tempdir().unwrap());
        for hub in ["", "hub/", "huggingface/hub/", ".cache/huggingface/hub/"] {
            cache.file(&format!("{hub}models--org--net/refs/main"), "abc123\n");
            cache.file(&format!("{hub}models--org--net/snapshots/abc123/model.safetensors"), "");
        }
        let variables = [
            ("HF_HUB_CACHE", ""),
            ("HF_HOME", "hub/"),
            ("XDG_CACHE_HOME", "huggingface/hub/"),
            ("HOME", ".cache/huggingface/hub/"),
        ];
        for (variable, hub) in variables {
            let expected = format!("{hub}models--org--net/snapshots/abc123");
            assert_eq!(cache.find("hf:org/net", variable), Ok(expected.clone()));
            assert_eq!(cache.find("hf:org/net@abc123", variable), Ok(expected));
        }
        cache.file("models--timm--resnet18.a1_in1k/refs/v2", "d4");
        cache.file("models--timm--resnet18.a1_in1k/snapshots/d4/pytorch_model.bin", "");
        let timm = cache.find("timm:resnet18.a1_in1k@v2", "HF_HUB_CACHE");
        assert_eq!(timm.unwrap(), "models--timm--resnet18.a1_in1k/snapshots/d4");
        cache.file("hub/checkpoints/resnet50-11ad3fa6.pth", "");
        cache.file("hub/checkpoints/resnet50_fpn-11ad3fa6.pth", "");
        let expected = Ok("hub/checkpoints/resnet50-11ad3fa6.pth".to_string());
        assert_eq!(cache.find("torchvision:resnet50", "TORCH_HOME"), expected);
        assert_eq!(cache.find("torchvision:resnet50-11ad3fa6.pth", "TORCH_HOME"), expected);
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_command_that_fetches_it() {
        let cache = Cache(tempfile::tempdir().unwrap());
        cache.file("models--org--net/refs/main", "abc123");
        cache.file("models--org--net/snapshots/abc123/config.json", "{}");
        cache.file("models--timm--resnet18.a1_in1k/refs/main", "d4");
        cache.file("hub/checkpoints/vgg16-397923af.pth", "");
        cache.file("hub/checkpoints/vgg16-c0ffee11.pth", "");
        for (name, variable, words) in [
            ("hf:org/net", "HF_HUB_CACHE", ["no weights", "`hf download org/net`"]),
            ("hf:org/net@v1", "HF_HUB_CACHE", ["no revision `v1`", "--revision v1`"]),
            ("hf:org/other", "HF_HUB_CACHE", ["is not in the cache", "`hf download org/other`"]),
            ("timm:resnet18", "HF_HUB_CACHE", ["is not in the cache", "the cache has timm:resnet18.a1_in1k"]),
            ("hf:../net", "HF_HUB_CACHE", ["is no name of a model", "hf:ORG/NAME"]),
            ("hf:org/net@../x", "HF_HUB_CACHE", ["is no name of a model", "hf:ORG/NAME"]),
            ("hf:a/b/c", "HF_HUB_CACHE", ["is no name of a model", "hf:ORG/NAME"]),
            ("hf:org/net", "NONE", ["HF_HUB_CACHE", "HOME"]),
            (
                "torchvision:resnet18",
                "TORCH_HOME",
                ["is not in the cache", "models.resnet18(weights=\"DEFAULT\")"],
            ),
            ("torchvision:vgg16", "TORCH_HOME", ["several files", "torchvision:vgg16-397923af.pth"]),
            ("torchvision:a/b", "TORCH_HOME", ["is no name of a model", "torchvision:resnet50"]),
        ] {
            let error = cache.find(name, variable).unwrap_err();
            words
                .iter()
                .for_each(|word| assert!(error.contains(word), "{name}: `{word}` is not in: {error}"));
        }
        assert_eq!(
            locate_by(Path::new("models/a.pth"), &has_weights, &|_| None).unwrap(),
            Path::new("models/a.pth")
        );
    }
}
