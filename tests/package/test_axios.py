"""The vendor's published JavaScript example with axios, with only the base URL changed.

`make test-package` installs axios by its lock file.
"""

import os
import shutil
import subprocess
from pathlib import Path

from tests.integration import server
from tests.integration.server import CEILING, LocalApi

local_api = server.local_api  # pytest finds fixtures among the names of this module

MODULES = Path(__file__).resolve().parents[2] / ".npm/axios/node_modules"
EXAMPLE = """\
const axios = require('axios');

const apiKey = process.env.FREDDY_API_KEY;

(async () => {
  const response = await axios.get(
    'ADDRESS/api/v1/scrape/batch/batch_xyz789/progress',
    { headers: { 'X-API-Key': apiKey } }
  );
  const data = response.data.data;
  console.log(`Progress: ${data.completed}/${data.total_urls} completed`);
  console.log(`Total items: ${data.total_items_extracted}`);
})();
"""


def test_javascript_axios(local_api: LocalApi, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node, "the JavaScript example needs node"
    assert (MODULES / "axios").is_dir(), "`python3 scripts/setup.py axios` installs it"
    (tmp_path / "example.js").write_text(EXAMPLE.replace("ADDRESS", local_api.address))
    environment = os.environ | {"FREDDY_API_KEY": "demo-token", "NODE_PATH": str(MODULES), "no_proxy": "127.0.0.1"}
    done = subprocess.run(  # noqa: S603  # the example
        [node, "example.js"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=CEILING
    )
    assert "Progress: 7/10 completed\nTotal items: 245\n" == done.stdout
