"""How sites come to know each other's public keys: on one machine, all at once."""

from collections.abc import Sequence
from pathlib import Path

from data_contracts.manifest import MANIFEST_NAME, SiteManifest
from federation.identity import IDENTITY_FILE, REGISTRY_FILE, Identity, Registry
from federation.run_state import state_folder


def enrol(folders: Sequence[Path], registry_file: Path) -> Path:
    """Give every site an identity, and every site and the coordinator all public keys.

    For networks whose sites all lie on this machine. Where they do not, people hand public keys
    to each other and each site pins what it was given.

    Args:
        folders: The sites' folders.
        registry_file: The coordinator's registry; replaced if it is there.

    Returns:
        `registry_file`.
    """
    states = {
        SiteManifest.load(folder).name: state_folder(folder / MANIFEST_NAME) for folder in folders
    }
    keys = {}
    for name, state in states.items():
        state.mkdir(exist_ok=True)
        keys[name] = Identity.load_or_create(state / IDENTITY_FILE).public_key
    registry = Registry(keys)
    for file in [registry_file, *(state / REGISTRY_FILE for state in states.values())]:
        registry.write(file)
    return registry_file
