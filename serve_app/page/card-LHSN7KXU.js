import{g as t}from"./chunk-RLH3V6A7.js";import"./chunk-SQE76S5B.js";var a=({state:e,problem:r})=>t("p",{children:r??e?.cards[0]?.name});export{a as CardPanel};
