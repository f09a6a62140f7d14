//! Published weights that can be fetched by name.

/// A published file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it is called here.
    pub name: &'static str,
    /// Where it is.
    pub url: &'static str,
    /// First digits of its SHA-256, in hexadecimal. PyTorch's publishers put eight of them into the file's name.
    pub sha256: &'static str,
    /// The preset that it is for.
    pub model: &'static str,
}

/// torchvision's, trained on ImageNet-1k; of ResNet-50 the second, better ones.
pub const KNOWN: [Known; 3] = [
    Known {
        name: "convnext_tiny",
        url: "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
        sha256: "983f1562",
        model: "convnext_tiny",
    },
    Known {
        name: "resnet18",
        url: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        sha256: "f37072fd",
        model: "resnet18",
    },
    Known {
        name: "resnet50",
        url: "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        sha256: "11ad3fa6",
        model: "resnet50",
    },
];

/// The file of that name.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// All names, in words.
pub(super) fn names() -> String {
    KNOWN.map(|known| known.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_files_are_for_presets_and_carry_their_checksum_in_their_name() {
        for Known { name, url, sha256, model } in KNOWN {
            assert!(harvest_models::PRESETS.contains(&model), "{model}");
            assert!(url.starts_with("https://") && url.ends_with(&format!("/{name}-{sha256}.pth")), "{url}");
        }
    }
}
