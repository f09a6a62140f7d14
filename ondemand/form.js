'use strict';

// The field for folders of images is shown where it is wanted, and sends nothing where it is not.

(() => {
  const field = (name) => document.getElementById(`batch_connect_session_context_${name}`);

  function show() {
    const wanted = field('more_folders');
    const folders = field('image_folders');
    if (!wanted || !folders) return;
    const group = folders.closest('.form-group, .mb-3') ?? folders.parentElement;
    group.hidden = !wanted.checked;
    folders.disabled = !wanted.checked;
  }

  function begin() {
    field('more_folders')?.addEventListener('change', show);
    show();
  }

  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', begin);
  else begin();
})();
