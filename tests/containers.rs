//! Image sets in the containers that others write: pickles of CIFAR, NumPy's .npz, STL-10, tar files of webdataset,
//! parquet of Hugging Face, and the folders that torchvision makes (`scripts/pictures.py` wrote the small ones here).

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::path::{Path, PathBuf};

use scrubjay::data::{CifarLabels, Labels, LoadOptions, Loaded, files, load_with};
use scrubjay::net::Shape;

fn set(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sets").join(name)
}

fn read(path: &Path) -> Loaded {
    load_with(path, &LoadOptions::default()).unwrap()
}

fn refused(path: &Path, words: &[&str]) {
    let error = load_with(path, &LoadOptions::default()).unwrap_err().to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
}

/// Pixel `at` of plane-major image `i` of the recorded pickles.
fn recorded(i: usize, at: usize) -> f32 {
    ((at * 7 + i * 50) % 256) as f32 / 255.0
}

#[test]
fn pickles_of_cifar_are_read_whatever_python_wrote_them() {
    for root in [set("ten"), set("ten/cifar-10-batches-py")] {
        let Loaded { samples, names, .. } = read(&root);
        assert_eq!((samples.shape(), &samples.y), (Shape::new(32, 32, 3), &Labels::Classes(vec![3, 9])));
        assert_eq!(names.classes.unwrap()[9], "c9");
        for i in 0..2 {
            for (at, value) in samples.image(i).unwrap().iter().enumerate() {
                assert_eq!(*value, recorded(i, at % 3 * 1024 + at / 3), "image {i}, {at}");
            }
        }
    }
    for test in ["ten#test", "ten/cifar-10-batches-py/test_batch"] {
        let Loaded { samples, names, .. } = read(&set(test));
        assert_eq!((samples.y, samples.x[0]), (Labels::Classes(vec![0]), recorded(2, 0)));
        assert_eq!(names.classes.unwrap().len(), 10);
    }
    let Loaded { samples, names, .. } = read(&set("hundred"));
    assert_eq!((samples.y, names.classes.unwrap()[77].as_str()), (Labels::Classes(vec![77]), "f77"));
    let coarse = LoadOptions { labels: CifarLabels::Coarse, ..LoadOptions::default() };
    let Loaded { samples, names, .. } = load_with(&set("hundred"), &coarse).unwrap();
    assert_eq!((samples.y, names.classes.unwrap()[19].as_str()), (Labels::Classes(vec![19]), "g19"));
    let error = load_with(&set("ten"), &coarse).unwrap_err().to_string();
    assert!(error.contains("coarse_labels"), "{error}");
    assert_eq!(files(&set("ten")).unwrap().len(), 2);
}

#[test]
fn damaged_pickles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(set("ten/cifar-10-batches-py/data_batch_2")).unwrap();
    let path = folder.path().join("data_batch_1");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused(folder.path(), &["data_batch_1", "truncated"]);
    std::fs::write(&path, std::fs::read(set("hundred/cifar-100-python/meta")).unwrap()).unwrap();
    refused(folder.path(), &["data_batch_1", "`data`", "no array"]);
}

#[test]
fn arrays_of_numpy_are_read_under_their_usual_names() {
    let train = read(&set("keras.npz"));
    assert_eq!(
        (train.samples.shape(), train.samples.y),
        (Shape::new(5, 4, 1), Labels::Classes(vec![2, 0, 1]))
    );
    let test = read(&set("keras.npz#test"));
    assert_eq!((test.samples.y, &test.samples.x[..]), (Labels::Classes(vec![1]), &train.samples.x[..20]));
    assert!(train.samples.x.iter().any(|&v| v > 0.5 && v <= 1.0));
    let fortran = read(&set("fortran.npz"));
    assert_eq!((fortran.samples.x, fortran.samples.y), (train.samples.x, Labels::Classes(vec![2, 0, 1])));
    refused(&set("fortran.npz#test"), &["fortran.npz", "x_test", "images"]);
    refused(&set("keras.npz#val"), &["x_val", "x_test"]);
}

#[test]
fn stl_has_its_columns_turned_and_its_labels_from_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let image: Vec<u8> = (0..3 * 96 * 96).map(|i: usize| (i / 96 % 96) as u8).collect(); // its column
    write("train_X.bin", &[&image[..], &image].concat());
    write("train_y.bin", &[10, 1]);
    write("class_names.txt", b"airplane\nbird\n");
    let Loaded { samples, names, .. } = read(folder.path());
    assert_eq!((samples.shape(), samples.y.clone()), (Shape::new(96, 96, 3), Labels::Classes(vec![9, 0])));
    let column = |at: usize| samples.image(1).unwrap()[at * 3] * 255.0;
    assert_eq!((column(0), column(95), column(96 * 7 + 5)), (0.0, 95.0, 5.0));
    assert_eq!(names.classes.unwrap(), ["airplane", "bird"]);
    write("train_y.bin", &[0, 1]);
    refused(folder.path(), &["train_y.bin", "label 0", "1 to 10"]);
    write("train_y.bin", &[1]);
    refused(folder.path(), &["train_X.bin", "truncated"]);
}

#[test]
fn tar_files_give_the_samples_of_webdataset() {
    for path in [set("shards"), set("shards/train-000.tar")] {
        let Loaded { samples, names, .. } = read(&path);
        assert_eq!((samples.shape(), samples.y), (Shape::new(13, 19, 3), Labels::Classes(vec![4, 1])));
        assert_eq!(names.samples.unwrap(), ["./a/1.jpg", "./a/2.png"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(set("shards/train-000.tar")).unwrap();
    std::fs::write(folder.path().join("cut.tar"), &whole[..1200]).unwrap();
    assert!(load_with(&folder.path().join("cut.tar"), &LoadOptions::default()).is_err());
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &whole).unwrap();
    std::fs::write(folder.path().join("x.tgz"), packed.finish().unwrap()).unwrap();
    assert_eq!(read(&folder.path().join("x.tgz")).samples.y, Labels::Classes(vec![4, 1]));
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_gives_the_pictures_of_hugging_face() {
    let Loaded { samples, names, notes, .. } =
        load_with(&set("hub/data/test-00000-of-00001.parquet"), &LoadOptions::default()).unwrap();
    assert_eq!((samples.shape(), samples.y), (Shape::new(13, 19, 3), Labels::Classes(vec![0])));
    assert_eq!(
        (names.classes.unwrap(), names.samples.unwrap()),
        (vec!["cat".into(), "dog".into()], vec!["rgb.png".into()])
    );
    assert!(notes.is_empty());
    assert_eq!(read(&set("hub#test")).samples.y, Labels::Classes(vec![0]));
    // The first picture is turned, as `datasets` turns it.
    refused(&set("hub"), &["rgb.png", "19 x 13", "13 x 19"]);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_of_datasets_gives_what_datasets_reads() {
    use scrubjay::data::{Normalise, load};

    let recorded = set("datasets/expected.safetensors");
    let bytes = std::fs::read(&recorded).unwrap();
    let recorded = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for folder in ["datasets/animals", "datasets/animals/default"] {
        for (part, path) in [("train", set(folder)), ("test", set(&format!("{folder}#test")))] {
            let Loaded { samples, names, .. } = read(&path);
            let pixels = recorded.tensor(part).unwrap();
            let pixels: Vec<f32> = pixels.data().iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
            let labels = recorded.tensor(&format!("{part}.labels")).unwrap();
            let labels: Vec<u32> = labels.data().chunks_exact(8).map(|word| u32::from(word[0])).collect();
            assert_eq!((samples.shape(), samples.x, samples.y), (Shape::new(5, 4, 3), pixels, labels.into()));
            assert_eq!(names.classes.unwrap(), ["cat", "dog", "emu"]);
            // In memory pictures have no path; over two shards samples are numbered on.
            assert_eq!(names.samples.unwrap()[..2], ["0", "1"]);
        }
    }
    let Loaded { samples, names, .. } = read(&set("datasets/several.parquet"));
    let rows = [[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]].concat();
    assert_eq!(samples.y, Labels::Multi { labels: 3, rows });
    assert_eq!(names.samples.unwrap(), ["0.png", "1.png", "2.png", "3.png"]);
    assert_eq!(names.columns, [("site".into(), ["berlin", "oslo", "", "oslo"].map(String::from).into())]);
    let Loaded { samples, names, .. } = read(&set("datasets/breeds.parquet"));
    assert_eq!((samples.y, names.columns[0].0.as_str()), (vec![2, 0].into(), "year"));
    let by_year = |labels: &[&str]| {
        let mut options = LoadOptions::default();
        options.texts.labels = labels.iter().map(|label| label.to_string()).collect();
        load_with(&set("datasets/breeds.parquet"), &options)
    };
    assert_eq!(by_year(&["year"]).unwrap().samples.y, vec![2019, 2020].into());
    assert!(by_year(&["site"]).unwrap_err().to_string().contains("photo, year, breed, and no"));
    refused(&set("datasets/paths.parquet"), &["row 1", "the path 0.png alone", "embed_table_storage"]);
    refused(&set("datasets/withheld.parquet"), &["row 2", "`label` -1", "0 to 2", "withheld"]);
    refused(&set("datasets/plain.parquet"), &["row 2", "label -1", "whole numbers from 0"]);
    assert!(load(&set("messages.parquet"), &Normalise::default()).is_err());
}

#[cfg(feature = "parquet")]
#[test]
fn classes_of_parquet_have_the_numbers_that_the_model_knows_them_by() {
    let with = |known: &[&str]| {
        let mut options = LoadOptions::default();
        options.expected.classes = Some(known.iter().map(|name| name.to_string()).collect());
        options.expected.outputs = Some(known.len());
        load_with(&set("datasets/animals"), &options).map(|loaded| loaded.samples.y)
    };
    assert_eq!(with(&["emu", "cat", "dog"]).unwrap(), vec![2, 1, 1, 2].into());
    assert_eq!(with(&["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]).unwrap(), vec![1, 0, 0, 1].into());
    assert!(with(&["dog", "cat", "owl"]).unwrap_err().to_string().contains("`emu`"));
}

#[cfg(feature = "parquet")]
#[test]
fn damaged_parquet_is_refused_or_read_and_never_ends_the_program() {
    let whole = std::fs::read(set("datasets/several.parquet")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let _ = load_with(&path, &LoadOptions::default());
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(load_with(&path, &LoadOptions::default()).is_err(), "cut at {at}");
    }
}

#[test]
fn labels_of_a_manifest_are_classes_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.csv");
    for name in ["a.png", "b.png"] {
        std::fs::copy(set("../pictures/rgb.png"), folder.path().join(name)).unwrap();
    }
    std::fs::write(&path, "path,label,site\na.png,1,x\nb.png,-1,y\n").unwrap();
    refused(&path, &["line 3", "label -1", "whole numbers from 0"]);
    let mut options = LoadOptions::default();
    options.texts.labels = vec!["site".into()];
    let Loaded { samples, names, .. } = load_with(&path, &options).unwrap();
    assert_eq!((samples.y, names.classes.unwrap()), (vec![0, 1].into(), vec!["x".into(), "y".into()]));
    std::fs::write(&path, b"path,label\na.png,1\nb.png,caf\xe9\n").unwrap();
    refused(&path, &["list.csv: line 3", "not UTF-8", "0xe9", "iconv"]);
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_is_refused_where_it_is_not_built_in() {
    refused(&set("hub"), &["hub", "--features parquet"]);
}

#[test]
fn matlab_files_of_svhn_give_what_scipy_reads() {
    let bytes = std::fs::read(set("svhn/expected.safetensors")).unwrap();
    let recorded = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let parts = [("train_32x32", "svhn"), ("test_32x32", "svhn#test"), ("big", "svhn/big.mat")];
    for (name, path) in parts {
        let samples = read(&set(path)).samples;
        let pixels = recorded.tensor(name).unwrap();
        let pixels: Vec<f32> = pixels.data().iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
        let labels = recorded.tensor(&format!("{name}.labels")).unwrap();
        let labels: Vec<u32> = labels.data().chunks_exact(8).map(|word| u32::from(word[0])).collect();
        assert_eq!((samples.shape(), samples.x, samples.y), (Shape::new(5, 4, 3), pixels, labels.into()));
    }
    // Cut off, or with a bit flipped, it is refused or read; where the two hold fewer bytes, always refused.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mat");
    for name in ["svhn/train_32x32.mat", "svhn/test_32x32.mat"] {
        let whole = std::fs::read(set(name)).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let _ = load_with(&path, &LoadOptions::default());
        }
        for at in (0..whole.len() - 8).step_by(5) {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(load_with(&path, &LoadOptions::default()).is_err(), "{name} cut at {at}");
        }
    }
}

#[test]
fn what_is_not_read_names_its_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train_32x32.mat");
    std::fs::write(&path, "MATLAB 5.0 MAT-file").unwrap();
    refused(&path, &["train_32x32.mat", "version 5"]);
    std::fs::write(&path, "MATLAB 7.3 MAT-file, Platform: GLNXA64").unwrap();
    refused(&path, &["train_32x32.mat", "7.3", "-v7"]);
    refused(&set("ten/cifar-10-batches-py/test_batch#test"), &["test_batch", "without parts"]);
}

#[test]
fn the_folders_of_torchvision_are_read_as_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let idx = |sides: &[u8], data: &[u8]| {
        let mut bytes = vec![0, 0, 8, sides.len() as u8];
        sides.iter().for_each(|&side| bytes.extend([0, 0, 0, side]));
        [&bytes[..], data].concat()
    };
    let write = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    for (part, label) in [("train", 1), ("t10k", 2)] {
        write(&format!("MNIST/raw/{part}-images-idx3-ubyte"), idx(&[1, 1, 2], &[label * 10, 255]));
        write(&format!("MNIST/raw/{part}-images-idx3-ubyte.gz"), vec![]);
        write(&format!("MNIST/raw/{part}-labels-idx1-ubyte"), idx(&[1], &[label]));
    }
    let labels = |name: &str| read(&folder.path().join(name)).samples.y;
    for name in ["", "MNIST", "MNIST/raw"] {
        assert_eq!(labels(name), Labels::Classes(vec![1]), "{name}");
        assert_eq!(labels(&format!("{name}#test")), Labels::Classes(vec![2]), "{name}");
    }
    write("EMNIST/raw/emnist-letters-train-images-idx3-ubyte", vec![]);
    refused(folder.path(), &["EMNIST and MNIST"]);
    write("EMNIST/raw/emnist-digits-train-images-idx3-ubyte", vec![]);
    refused(&folder.path().join("EMNIST"), &["emnist-digits-train", "emnist-letters-train", "give one"]);
    std::fs::create_dir_all(folder.path().join("parts/train/cat")).unwrap();
    std::fs::create_dir_all(folder.path().join("parts/test/cat")).unwrap();
    for part in ["train", "test"] {
        let from = set("../pictures/rgb.png");
        std::fs::copy(from, folder.path().join(format!("parts/{part}/cat/{part}.png"))).unwrap();
    }
    let parts = read(&folder.path().join("parts#test"));
    assert_eq!(parts.names.samples.unwrap(), ["cat/test.png"]);
}
