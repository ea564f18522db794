/* Takes away what Django's own scripts put in the way of screen readers: the icon beside a filter of
   choices has a label and no role, without which a label must not be read. */
"use strict";

window.addEventListener("load", () => {
    for (const icon of document.querySelectorAll(".search-label-icon[aria-label]")) {
        icon.setAttribute("role", "img");
    }
});
